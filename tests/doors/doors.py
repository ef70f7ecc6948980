"""The doors between the rooms, as the README's diagram draws them, and what breaks them.

Each row may include every row below it. What is allowed within a row, and what is forbidden although
it lies below, stands in the two tables; everything else is a violation.
"""

import pathlib
import re
from typing import NamedTuple

# Bottom first.
ROWS = (
    ("kernels",),
    ("core", "linalg"),
    ("formats", "families", "tokenize", "io"),
    ("train", "calibrate", "runtime"),
    ("distill", "prune", "lowrank", "quantize", "eval"),
    ("pipeline",),
    ("cli", "bindings"),
)
SIDEWAYS = {
    "core": {"linalg"},
    "formats": {"io", "families", "tokenize"},
    "tokenize": {"io"},
    "families": {"io"},  # configuration keys are read from GGUF metadata
}
# The pipeline knows passes by their interface only; cli and bindings alone name them.
CLOSED = {"pipeline": {"distill", "prune", "lowrank", "quantize"}}
# The one header that every room above the kernels may include.
ERRORS = "compress/core/errors.h"

FOLDERS = ("compress", "distill", "prune", "lowrank", "quantize", "eval", "python")
TENSOR_LIBRARIES = re.compile(r"(ATen|torch|c10|caffe2|Eigen|unsupported/Eigen)/")
# Seconds of compile time for everybody who includes the header.
TOO_WIDE_FOR_A_HEADER = {"torch/torch.h", "torch/all.h", "torch/extension.h", "ATen/ATen.h"}
# Compiled with instruction-set flags: an inline function of the standard library in there may be the
# copy that the linker keeps for everybody.
INSTRUCTION_SET_FILE = re.compile(r"(sse\d*|avx\w*|amx\w*|neon|sve\w*)\.cpp$")
HARMLESS_THERE = {"immintrin.h", "arm_neon.h", "cstdint", "cstddef", "cstring"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Violation(NamedTuple):
    file: str
    line: int
    why: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.why}"


def room_of(path):
    """The room that a path from the top of the tree lies in, or None."""
    parts = pathlib.PurePosixPath(path).parts
    if len(parts) < 2:
        return None
    if parts[0] == "compress":
        return parts[1] if len(parts) > 2 else None
    if parts[0] == "python":
        return "bindings" if parts[1] == "bindings" else None
    return parts[0]


def row_of(room):
    return next((i for i, row in enumerate(ROWS) if room in row), None)


def door_fault(room, included):
    """Why `room` may not include the header `included` (a path from the top), or None."""
    other = room_of(included)
    if row_of(other) is None:
        return f'"{included}" lies in no room; an include is written from the top of the tree'
    if other == room or (included == ERRORS and room != "kernels"):
        return None
    mine, its = row_of(room), row_of(other)
    if its > mine:
        return f"upward door: {room} includes {other} (\"{included}\")"
    if its == mine and other not in SIDEWAYS.get(room, ()):
        return f"sideways door: {room} includes {other} (\"{included}\")"
    if other in CLOSED.get(room, ()):
        return f"closed door: {room} names {other} (\"{included}\")"
    return None


def library_fault(file, room, included):
    """Why `file` may not include <included>, or None."""
    if room == "kernels" and TENSOR_LIBRARIES.match(included):
        return f"kernels work on raw pointers, without <{included}>"
    if file.endswith(".h") and included in TOO_WIDE_FOR_A_HEADER:
        return f"a header includes <{included}>; take <ATen/core/Tensor.h> or a single operator"
    if room == "kernels" and INSTRUCTION_SET_FILE.search(file) and included not in HARMLESS_THERE:
        return f"a file with instruction-set flags includes <{included}>"
    return None


def violations(top):
    """Every violation in the tree at `top`, in the order of the files."""
    found = []
    for folder in FOLDERS:
        for path in sorted((top / folder).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            file = path.relative_to(top).as_posix()
            room = room_of(file)
            if row_of(room) is None:
                found.append(Violation(file, 1, "this file lies in no room of the diagram"))
                continue
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
                if not (match := INCLUDE.match(line)):
                    continue
                own = match[1] == '"' or match[2].split("/")[0] in FOLDERS
                why = door_fault(room, match[2]) if own else library_fault(file, room, match[2])
                if why:
                    found.append(Violation(file, number, why))
    return found
