"""`kill -9` while a model learns: the same command goes on and ends in the same bytes, with one
thread or two. ATTAR_KILLS says how many kills."""

import os
import random
import re
import subprocess
import time

from attar_program import PROGRAM, make_stories, make_text, recipe_for, succeed, write_recipe
from test_cli_run import hashes

KILLS = int(os.environ.get("ATTAR_KILLS", 10))


def learning(folder, **options):
    make_stories(folder / "model")
    make_text(folder / "text.txt", 400)
    common = {"text": str(folder / "text.txt"), "batch": 4, "length": 64, "learning_rate": 1e-3,
              "save_seconds": 0.05}
    return recipe_for(folder, calibration=None, eval=None, passes=[
        {"train.text": {**common, "steps": 25, "average": 0.9}},
        {"distill": {**common, "steps": 25, "loss": ["taid", {"hidden": {"weight": 0.1}}],
                     **options}}])


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


def events(out):
    return (out / "run.jsonl").read_text()


def test_random_kills_end_in_the_same_bytes(tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", learning(tmp_path, on_policy=0.25))
    started = time.monotonic()
    succeed("run", recipe, "--out", tmp_path / "straight", "--threads", 2)
    whole = time.monotonic() - started
    expected = hashes(tmp_path / "straight")
    assert expected
    dice = random.Random(20260202)
    kills, round_number, resumed = 0, 0, 0
    while kills < KILLS:
        out = tmp_path / f"out{round_number}"
        while kills < KILLS and kill_after(
                [PROGRAM, "run", recipe, "--out", out, "--threads", str(dice.choice((1, 2)))],
                dice.uniform(0.1, 0.9) * whole):
            kills += 1
        succeed("run", recipe, "--out", out, "--threads", 1)
        assert hashes(out) == expected
        resumed += "training_resumed" in events(out)
        round_number += 1
        assert round_number < 10 * KILLS
    assert resumed > 0


def assert_learnt(out):
    first, last = re.search(r"first step: loss ([\d.]+).*?last step: loss ([\d.]+)",
                            events(out)).groups()
    assert float(last) < 0.8 * float(first)


def test_training_lowers_the_loss_and_a_cache_serves_twice(tmp_path):
    recipe = learning(tmp_path, loss="forward_kl", cache=str(tmp_path / "cache"), cache_count=16)
    path = write_recipe(tmp_path / "r.yaml", recipe)
    succeed("run", path, "--out", tmp_path / "a")
    assert_learnt(tmp_path / "a")
    assert re.search(r"[1-9]\d* shards written now", events(tmp_path / "a"))
    succeed("run", path, "--out", tmp_path / "b")
    assert " 0 shards written now" in events(tmp_path / "b")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_a_model_from_nothing_learns_and_is_exported(tmp_path):
    recipe = learning(tmp_path)
    recipe["passes"] = recipe["passes"][:1]
    (tmp_path / "model/model.safetensors").unlink()
    (tmp_path / "model/initialise.json").write_text('{"seed": 3, "deviation": 0.05}')
    path = write_recipe(tmp_path / "r.yaml", recipe)
    succeed("run", path, "--out", tmp_path / "a")
    assert_learnt(tmp_path / "a")
    assert (tmp_path / "a/hf/model.safetensors").is_file()
    assert not (tmp_path / "a/hf/initialise.json").exists()
