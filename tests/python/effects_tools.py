"""What the tests of effects share: passes on a model that knows something, and the mean KL of what
they leave to the original. Models:

    stories260K  260 thousand weights, TinyStories          (needs ../shared)
    tinyworld    recipes/tinyworld/teacher, its own world   (needs nothing)
    smollm2      models/smollm2, C4 and WikiText-2          (needs `make models`, ../shared; minutes)
"""

import atexit
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from attar_program import SHARED, SOURCE, make_stories, succeed, write_recipe

real = pytest.mark.skipif(os.environ.get("ATTAR_REAL") != "1", reason="needs ATTAR_REAL=1: minutes")
TINYWORLD = SOURCE / "recipes/tinyworld"


def needed(path):
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


@functools.cache
def world():
    """The small world's texts, made once."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="attar-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, str(TINYWORLD / "make_world.py"), str(folder / "world")],
                   check=True, capture_output=True)
    return folder / "world"


def model_and_texts(name, tmp_path):
    """The model, a text to calibrate on and learn from, another to measure on."""
    if name == "smollm2":
        return (needed(SOURCE / "models/smollm2"), needed(SHARED / "data/eval/calib_c4.txt"),
                needed(SHARED / "data/eval/wikitext2_test.raw.txt"))
    if name == "tinyworld":  # where lessons count is where it was taught to answer
        lessons = world() / "lessons.jsonl"
        lines = lessons.read_text().splitlines(keepends=True)
        learned, other = world() / "learned.jsonl", world() / "other.jsonl"
        if not other.exists():
            learned.write_text("".join(lines[:-1000]))
            other.write_text("".join(lines[-1000:]))
        return TINYWORLD / "teacher", learned, other
    folder = tmp_path / "model"
    if not folder.exists():
        make_stories(folder)
    return (folder, needed(SHARED / "data/eval/tinystories_train_first4949.txt"),
            needed(SHARED / "data/eval/tinystories_valid_part.txt"))


LENGTHS = {"tinyworld": 192}
MEASURED = {}  # recipe -> what run() gave: on SmolLM2, tests share what they compare with


def run(tmp_path, name, model, passes, export=(), calibration=(64, 256), windows=16,
        token_weights="fisher"):
    """Mean KL to the original in nats, and the folder of the run. `passes` may be a function of the
    text to learn from."""
    folder, text, other = model_and_texts(model, tmp_path)
    length, large = LENGTHS.get(model, 256), model == "smollm2"
    recipe = {"version": 1, "seed": 5, "model": str(folder),
              "calibration": {"text": str(text), "sequences": calibration[0],
                              "length": min(length, calibration[1]),
                              "token_weights": token_weights},
              "passes": passes(str(text)) if callable(passes) else passes,
              "eval": [{"divergence": {"text": str(other), "length": length,
                                       "windows": windows}}]}
    if export:
        recipe["export"] = list(export)
    key = json.dumps(recipe)
    if key in MEASURED:
        return MEASURED[key]
    out = tmp_path / name
    threads = [] if large else ["--threads", "1"]  # small matrices keep a second one waiting
    succeed("run", write_recipe(tmp_path / f"{name}.yaml", recipe), "--out", out, *threads,
            timeout=3600)
    text = json.loads((out / "results.json").read_text())["attar"]["texts"][0]
    print(f"{model} {name}: KL {text['kl_mean']['value']:.4f}, perplexity "
          f"{text['perplexity_before']['value']:.2f} -> {text['perplexity_after']['value']:.2f}")
    found = text["kl_mean"]["value"], out
    if large and not export:
        MEASURED[key] = found
    return found
