"""`kill -9` at random moments of every phase: the same command goes on and ends in the same bytes.

On stories260K in `make test`; with ATTAR_REAL=1 on SmolLM2, and there also that threads and batch
change no bit. ATTAR_KILLS=30 says how many kills."""

import collections
import json
import os
import random
import subprocess
import time

import pytest

from attar_program import (PROGRAM, SMOLLM2, SOURCE, make_stories, make_text, recipe_for, succeed,
                           write_recipe)
from test_cli_run import hashes
from test_tune import ends_alike_when_killed

REAL = os.environ.get("ATTAR_REAL") == "1"
KILLS = int(os.environ.get("ATTAR_KILLS", 8))
# One round of kills of one run, each from the start of the phase it names.
ROUND = ("opening", "passes", "passes", "export", "verify", "measure", "ending")


def tiny(folder):
    make_stories(folder / "model")
    make_text(folder / "text.txt", 400)
    recipe = recipe_for(folder)
    recipe["calibration"].update(sequences=64, length=64)
    return write_recipe(folder / "r.yaml", recipe)


def real(folder):
    if not SMOLLM2.is_file():
        pytest.skip(f"needs {SMOLLM2}")
    text = str(SOURCE / "recipes/calibration.txt")
    return write_recipe(folder / "r.yaml", {
        "version": 1, "seed": 7, "model": str(SMOLLM2),
        "calibration": {"text": text, "sequences": 2, "length": 128},
        "passes": [{"quantize.gptq": {"group_size": 32, "symmetric": True, "search": False}}],
        "eval": [{"divergence": {"text": text, "length": 128, "windows": 1}}],
        "export": [{"format": "gguf", "type": "Q4_0", "path": "x/model.gguf"},
                   {"format": "compressed-tensors", "path": "hf"}]})


def events(out, skip=0):
    """Of the log of a run, without the first `skip` bytes; a torn last line is left out."""
    for log in [*out.parent.glob(f"{out.name}.partial-*/run.jsonl"), out / "run.jsonl"]:
        try:
            lines = log.read_bytes()[skip:].split(b"\n")[:-1]
        except OSError:
            continue  # not yet, or renamed just now
        return [json.loads(line) for line in lines if line.startswith(b"{")]
    return []


def log_bytes(out):
    logs = [*out.parent.glob(f"{out.name}.partial-*/run.jsonl")]
    return logs[0].stat().st_size if logs else 0


def phase_of(found):
    """Where a run is whose events are `found`."""
    phase = "opening"
    for event in found:
        if event["event"] == "phase":
            phase = event["phase"].split(":")[0]  # "passes: quantize.gptq"
        elif event["event"] in ("export", "verify"):
            phase = "verify" if event["event"] == "verify" or event["path"] == "hf" else "export"
        elif event["event"] == "done":
            phase = "ending"
    return phase


def seconds_by_phase(found):
    """How long each phase of a finished run took."""
    seconds = collections.Counter(opening=0.2, ending=0.05)
    for at in range(1, len(found)):
        seconds[phase_of(found[:at])] += found[at]["elapsed"] - found[at - 1]["elapsed"]
    return seconds


def kill_in(command, out, phase, delay):
    """Kills the run `delay` seconds after `phase` began and says where it was; None: it had ended."""
    skip = log_bytes(out)
    with open(out.parent / "errors.txt", "w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        until = time.monotonic() + delay if phase == "opening" else None
        while until is None or time.monotonic() < until:
            if process.poll() is not None:
                errors.seek(0)
                assert process.returncode == 0, errors.read()
                return None
            if until is None and ROUND.index(phase_of(events(out, skip))) >= ROUND.index(phase):
                until = time.monotonic() + delay
            time.sleep(0.002)
        process.kill()
        process.wait()
    return phase_of(events(out, skip))


def test_random_kills_end_in_the_same_bytes(tmp_path):
    recipe = real(tmp_path) if REAL else tiny(tmp_path)
    succeed("run", recipe, "--out", tmp_path / "straight", timeout=7200)
    lasts = seconds_by_phase(events(tmp_path / "straight"))
    expected = hashes(tmp_path / "straight")
    assert expected
    dice = random.Random(20260101)
    hit = collections.Counter()
    for number in range(10 * KILLS):
        if hit.total() >= KILLS:
            break
        out = tmp_path / f"out{number}"
        command = [PROGRAM, "run", recipe, "--out", out]
        for phase in ROUND:
            if hit.total() == KILLS or out.exists():
                break
            where = kill_in(command, out, phase, dice.uniform(0, 1) * lasts[phase])
            hit.update([where] if where else [])
        succeed("run", recipe, "--out", out, timeout=7200)
        assert hashes(out) == expected
        assert not list(tmp_path.glob("*.partial-*"))
    print(f"{hit.total()} kills: {dict(hit)}; seconds of a phase: "
          f"{ {phase: round(spent, 2) for phase, spent in lasts.items()} }")
    assert hit.total() == KILLS
    if KILLS >= 28:
        assert {"passes", "measure", "export", "verify"} <= set(hit)


GRID = {"bits": 3, "group_size": 4}


# AWQ and SmoothQuant scale the unchanged block as well, and the stream of the targets runs on it.
@pytest.mark.parametrize("passes", [
    [{"quantize.awq": GRID}, {"quantize.gptq": GRID}, {"lowrank.correct": {"rank": 4}}],
    [{"quantize.smooth": {}}, {"quantize.gptq": {"bits": 8, "group_size": 0, "symmetric": True,
                                               "activations": 8}}],
    [{"prune.sparse": {"pattern": "2:4"}}, {"quantize.awq": GRID}, {"quantize.gptq": GRID}],
], ids=lambda passes: " ".join(key.split(".")[1] for one in passes for key in one))
def test_a_kill_between_blocks_ends_in_the_same_bytes(passes, tmp_path):
    make_stories(tmp_path / "model")
    make_text(tmp_path / "text.txt", 400)
    recipe = recipe_for(tmp_path) | {
        "calibration": {"text": str(tmp_path / "text.txt"), "sequences": 128, "length": 128},
        "passes": passes, "export": [{"format": "compressed-tensors" if "quantize.smooth" in passes[0] else
                    "huggingface", "path": "hf"}]}
    events = ends_alike_when_killed(tmp_path, write_recipe(tmp_path / "r.yaml", recipe),
                                    "block-00002-*.json")
    assert sum(event.get("restored", False) for event in events) >= 3


@pytest.mark.skipif(not REAL, reason="needs ATTAR_REAL=1: takes minutes")
def test_threads_and_batch_change_no_bit_of_smollm2(tmp_path):
    recipe = real(tmp_path)
    found = []
    for threads, batch in [(1, 1), (2, 1), (1, 8), (2, 8)]:
        out = tmp_path / f"threads{threads}-batch{batch}"
        succeed("run", recipe, "--out", out, "--threads", threads, "--batch", batch,
                "calibration.sequences=10", timeout=7200)
        found.append(hashes(out))
    assert found[0] and all(other == found[0] for other in found)
