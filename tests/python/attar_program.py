"""Runs build/bin/attar for the tests of the command line, and makes small inputs for it."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SHARED = SOURCE.parent / "shared"
PROGRAM = os.environ.get("ATTAR_PROGRAM", str(SOURCE / "build/bin/attar"))
STORIES = SHARED / "data/models/stories260K"
TOKENIZER = SHARED / "data/tokenizers/llama2c/tok512.model"
SMOLLM2 = SOURCE / "models/smollm2.gguf"


def attar(*arguments, cwd=None, timeout=600, environment=None):
    """The finished process; stdout and stderr are text."""
    return subprocess.run([PROGRAM, *map(str, arguments)], cwd=cwd, timeout=timeout,
                          env={**os.environ, **(environment or {})}, capture_output=True, text=True)


def succeed(*arguments, **options):
    done = attar(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def make_stories(folder):
    """stories260K (a Llama of 260 thousand weights) with its tokenizer, as a model folder."""
    if not STORIES.is_dir():
        pytest.skip(f"needs {STORIES}")
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(STORIES / name, folder / name)
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    return folder


STORY = ("Once upon a time there was a little girl named Lily. She loved to play outside in the "
         "park with her dog. One day the dog found a big red ball and they played until the sun "
         "went down. Then mom called them home and they ate warm soup together. ")


def make_text(path, times=40):
    path.write_text("".join(STORY.replace("Lily", name) + str(i) + "\n" for i, name in
                            zip(range(times), ["Lily", "Tom", "Anna", "Ben", "Sue"] * times)))
    return path


def recipe_for(folder, **changes):
    """A recipe that quantizes stories260K in a second, as a dictionary."""
    recipe = {
        "version": 1,
        "seed": 3,
        "model": str(folder / "model"),
        "calibration": {"text": str(folder / "text.txt"), "sequences": 8, "length": 64},
        "passes": [{"quantize.gptq": {"bits": 4, "group_size": 32, "symmetric": True,
                                      "skip": ["down"]}}],
        "eval": [{"divergence": {"text": str(folder / "text.txt"), "length": 64, "windows": 4}}],
        "export": [{"format": "huggingface", "path": "hf"}],
    }
    recipe.update(changes)
    return {key: value for key, value in recipe.items() if value is not None}


def write_recipe(path, recipe):
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path
