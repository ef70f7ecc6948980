"""`kill -9` at random moments: the same command goes on and ends in the same bytes.

On stories260K in `make test`; with ATTAR_REAL=1 on SmolLM2. ATTAR_KILLS=30 says how many."""

import os
import random
import subprocess
import time

import pytest

from attar_program import (PROGRAM, SMOLLM2, SOURCE, make_stories, make_text, recipe_for, succeed,
                           write_recipe)
from test_cli_run import hashes

REAL = os.environ.get("ATTAR_REAL") == "1"
KILLS = int(os.environ.get("ATTAR_KILLS", 8))


def tiny(folder):
    make_stories(folder / "model")
    make_text(folder / "text.txt", 400)
    recipe = recipe_for(folder)
    recipe["calibration"].update(sequences=64, length=64)
    return write_recipe(folder / "r.yaml", recipe)


def real(folder):
    if not SMOLLM2.is_file():
        pytest.skip(f"needs {SMOLLM2}")
    return write_recipe(folder / "r.yaml", {
        "version": 1, "seed": 7, "model": str(SMOLLM2),
        "calibration": {"text": str(SOURCE / "recipes/calibration.txt"), "sequences": 8,
                        "length": 128},
        "passes": [{"quantize.awq": {"steps": 2}},
                   {"quantize.gptq": {"group_size": 32, "symmetric": True, "refits": 0,
                                      "descents": 0}}],
        "export": [{"format": "gguf", "type": "Q4_0", "path": "x/model.gguf"},
                   {"format": "compressed-tensors", "path": "hf"}]})


def kill_after(command, seconds):
    """True when the run was killed, False when it had ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=seconds)
        assert process.returncode == 0, errors.decode()
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True


def test_random_kills_end_in_the_same_bytes(tmp_path):
    recipe = real(tmp_path) if REAL else tiny(tmp_path)
    started = time.monotonic()
    succeed("run", recipe, "--out", tmp_path / "straight", timeout=1800)
    whole = time.monotonic() - started
    expected = hashes(tmp_path / "straight")
    assert expected
    dice = random.Random(20260101)
    kills, round_number = 0, 0
    while kills < KILLS:
        out = tmp_path / f"out{round_number}"
        command = [PROGRAM, "run", recipe, "--out", out]
        while kills < KILLS and kill_after(command, dice.uniform(0.02, 1.0) * whole):
            kills += 1
        succeed("run", recipe, "--out", out, timeout=1800)
        assert hashes(out) == expected
        assert not list(tmp_path.glob("*.partial-*"))
        round_number += 1
        assert round_number < 10 * KILLS
