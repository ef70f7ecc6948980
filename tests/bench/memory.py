#!/usr/bin/env python3
"""Peak resident memory of `attar run` with quantize.gptq, beside what `attar plan` says.

    python3 tests/bench/memory.py MODEL:SEQUENCES ... --text calib.txt [--length 512] [--threads 1]

One line a model: planned and measured bytes (VmHWM of the process), their ratio, seconds, and of
the largest sample how much was memory of its own (the rest is mapped files and code). --blocks 3
ends a run after so many blocks: each costs the same, so the passes' peak has been seen by then.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("ATTAR_PROGRAM", str(ROOT / "build/bin/attar"))


def recipe_for(model, sequences, arguments):
    recipe = {"version": 1, "seed": 7, "model": str(pathlib.Path(model).resolve()),
              "calibration": {"text": str(pathlib.Path(arguments.text).resolve()),
                              "sequences": sequences, "length": arguments.length},
              "passes": [{"quantize.gptq": {"bits": 4, "group_size": arguments.group}}]}
    if arguments.export:
        recipe["export"] = [{"format": "compressed-tensors", "path": "hf"}]
    return recipe


def status(process):
    """Bytes: the peak so far, resident now, and of these anonymous; None when it has ended."""
    try:
        lines = open(f"/proc/{process.pid}/status").read().splitlines()
    except OSError:
        return None
    found = {key: int(value.split()[0]) * 1024 for key, _, value in
             (line.partition(":") for line in lines) if key in ("VmHWM", "VmRSS", "RssAnon")}
    return tuple(found[key] for key in ("VmHWM", "VmRSS", "RssAnon")) if len(found) == 3 else None


def finished_blocks(folder):
    logs = list(folder.glob("out*/run.jsonl"))
    return logs[0].read_bytes().count(b'"event":"block"') if logs else 0


def measure(recipe, folder, arguments):
    """(peak bytes, resident and anonymous bytes of the largest sample)."""
    command = [PROGRAM, "run", recipe, "--out", folder / "out", "--threads", str(arguments.threads)]
    with open(folder / "errors.txt", "w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        peak, largest, stopped = 0, (0, 0), False
        while process.poll() is None:
            if found := status(process):
                peak, largest = max(peak, found[0]), max(largest, found[1:])
            if arguments.blocks and not stopped and finished_blocks(folder) >= arguments.blocks:
                process.terminate()
                stopped = True
            time.sleep(0.05)
        errors.seek(0)
        assert process.returncode == (75 if stopped else 0), errors.read()[-2000:]
    return peak, largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL:SEQUENCES")
    parser.add_argument("--text", required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, help="stop after so many")
    parser.add_argument("--export", action="store_true", help="write and verify compressed-tensors")
    arguments = parser.parse_args()
    for entry in arguments.models:
        model, _, sequences = entry.rpartition(":")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            recipe = folder / "recipe.yaml"
            recipe.write_text(json.dumps(recipe_for(model, int(sequences), arguments)))
            said = subprocess.run([PROGRAM, "plan", recipe, "-o", "json"], capture_output=True,
                                  text=True)
            assert said.returncode == 0, said.stderr
            plan = json.loads(said.stdout)
            since = time.monotonic()
            peak, (resident, anonymous) = measure(recipe, folder, arguments)
            print(f"{model}, {sequences} x {arguments.length} tokens: "
                  f"planned {plan['peak_bytes'] / 1e6:.0f} MB, measured {peak / 1e6:.0f} MB, "
                  f"planned / measured {plan['peak_bytes'] / peak:.2f}, "
                  f"{time.monotonic() - since:.0f} s on {arguments.threads} threads")
            planned = {phase["phase"]: phase["peak_bytes"] for phase in plan["phases"]}
            print("  planned: " + ", ".join(f"{n} {b / 1e6:.0f}" for n, b in planned.items()) +
                  f"; largest sample {resident / 1e6:.0f}, of its own {anonymous / 1e6:.0f}",
                  flush=True)


if __name__ == "__main__":
    main()
