"""The tree keeps its doors; and a tree that does not is found out."""

import pathlib

import doors
import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]


def test_no_file_of_the_tree_includes_upward_or_sideways():
    found = doors.violations(TOP)
    assert not found, "\n" + "\n".join(map(str, found))


def test_the_tree_that_is_checked_has_files_in_it():
    assert len(list(TOP.glob("compress/core/*.h"))) > 2


def planted(top, file, line):
    path = top / file
    path.parent.mkdir(parents=True)
    path.write_text(f"// A file.\n#pragma once\n{line}\n")
    return [str(violation) for violation in doors.violations(top)]


@pytest.mark.parametrize("file, line, why", [
    ("compress/core/a.h", '#include "compress/io/b.h"', "upward door: core includes io"),
    ("compress/kernels/a.h", '#include "compress/core/errors.h"', "upward door: kernels"),
    ("compress/linalg/a.cpp", '#include "compress/core/model.h"', "sideways door: linalg"),
    ("compress/io/a.cpp", '#include "compress/tokenize/b.h"', "sideways door: io"),
    ("compress/runtime/a.cpp", '  #  include "compress/calibrate/b.h"', "sideways door: runtime"),
    ("quantize/a.cpp", '#include "lowrank/b.h"', "sideways door: quantize includes lowrank"),
    ("eval/a.cpp", '#include "quantize/b.h"', "sideways door: eval includes quantize"),
    ("quantize/a.cpp", '#include <lowrank/b.h>', "sideways door: quantize includes lowrank"),
    ("quantize/a.cpp", '#include "compress/pipeline/b.h"', "upward door: quantize"),
    ("compress/pipeline/a.cpp", '#include "quantize/b.h"', "closed door: pipeline names quantize"),
    ("compress/pipeline/a.cpp", '#include "compress/cli/b.h"', "upward door: pipeline"),
    ("python/bindings/a.cpp", '#include "compress/cli/b.h"', "sideways door: bindings"),
    ("compress/core/a.cpp", '#include "weight.h"', "lies in no room"),
    ("compress/core/a.cpp", '#include "../io/b.h"', "lies in no room"),
    ("compress/strange/a.h", "", "this file lies in no room"),
    ("compress/core/a.h", "#include <torch/torch.h>", "a header includes <torch/torch.h>"),
    ("compress/core/a.h", "#include <ATen/ATen.h>", "a header includes <ATen/ATen.h>"),
    ("compress/kernels/x/a.h", "#include <ATen/core/Tensor.h>", "raw pointers"),
    ("compress/kernels/x/a.cpp", "#include <Eigen/Dense>", "raw pointers"),
    ("compress/kernels/x/avx2.cpp", "#include <algorithm>", "instruction-set flags"),
])
def test_a_planted_violation_is_found_with_its_file_and_line(tmp_path, file, line, why):
    found = planted(tmp_path, file, line)
    assert len(found) == 1 and why in found[0]
    assert found[0].startswith(f"{file}:{3 if line else 1}: ")


@pytest.mark.parametrize("file, line", [
    ("compress/core/a.h", '#include "compress/core/errors.h"'),
    ("compress/core/a.h", '#include "compress/linalg/b.h"'),
    ("compress/linalg/a.h", '#include "compress/core/errors.h"'),
    ("compress/formats/a.h", '#include "compress/tokenize/b.h"'),
    ("compress/tokenize/a.h", '#include "compress/io/b.h"'),
    ("compress/calibrate/a.h", '#include "compress/io/b.h"'),
    ("quantize/a.cpp", '#include "compress/kernels/x/b.h"'),
    ("quantize/a.cpp", "#include <ATen/ATen.h>"),
    ("compress/pipeline/a.cpp", '#include "eval/b.h"'),
    ("compress/cli/a.cpp", '#include "quantize/b.h"'),
    ("python/bindings/a.cpp", '#include "prune/b.h"'),
    ("compress/kernels/x/avx2.cpp", "#include <immintrin.h>"),
    ("compress/core/a.h", '// #include "compress/io/b.h"'),
])
def test_an_open_door_is_left_alone(tmp_path, file, line):
    assert planted(tmp_path, file, line) == []
