"""Commands and options that no other test runs to their end, on a small model: each does what its
help says."""

import json
import os

import gguf
import h5py
import numpy
import pytest

from attar_program import (attar, make_stories, make_text, recipe_for, succeed, write_recipe)
from effects_tools import TINYWORLD, world
from test_cli_run import hashes
from test_package import ARC
from test_tune import notes


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    make_stories(folder / "model")
    make_text(folder / "text.txt", 200)
    return folder


def kl(out):
    return json.loads((out / "results.json").read_text())["attar"]["texts"][0]["kl_mean"]["value"]


def test_bench_measures_both_phases_and_the_memory(work):
    found = json.loads(succeed("bench", work / "model", "--prompt", 16, "--tokens", 4, "--rounds", 1,
                               "-o", "json").stdout)
    for rate in ("prefill_tokens_per_second", "decode_tokens_per_second", "bandwidth_bytes_per_second"):
        assert found[rate] > 0
    share = (found["decode_tokens_per_second"] * found["weight_bytes_per_token"] /
             found["bandwidth_bytes_per_second"])
    assert found["decode_share_of_bandwidth"] == pytest.approx(share, rel=1e-3)
    assert "decoding reaches" in succeed("bench", work / "model", "--tokens", 4, "--rounds", 1).stdout


def test_resume_is_run(work):
    recipe = write_recipe(work / "resume.yaml", recipe_for(work))
    succeed("run", recipe, "--out", work / "ran")
    succeed("resume", recipe, "--out", work / "resumed")
    assert hashes(work / "ran") == hashes(work / "resumed") != {}


# Blocks that are searched by what the inputs weigh cost less, and are not the plain ones.
def test_an_importance_matrix_is_written_and_used(work):
    matrix, model = work / "imatrix.gguf", TINYWORLD / "teacher"
    succeed("importance", model, "--text", world() / "train.txt", "--sequences", 64, "--length",
            192, "--out", matrix)
    means = {t.name: t.data for t in gguf.GGUFReader(matrix).tensors}
    squares = means["blk.0.ffn_down.weight.in_sum2"]
    assert squares.size == 256 and numpy.isfinite(squares).all() and (squares > 0).all()
    step = {"format": "gguf", "type": "Q4_0", "path": "m.gguf"}
    recipe = recipe_for(work, model=str(model), passes=None, calibration=None, eval=None)
    for name, export in [("plain", step), ("weighted", step | {"importance": str(matrix)})]:
        path = write_recipe(work / f"{name}.yaml", recipe | {"export": [export]})
        succeed("run", path, "--out", work / name)
    cost = {name: json.loads(succeed("compare", model, work / name / "m.gguf", "--text",
                                     world() / "valid.txt", "--length", 192,
                                     "--windows", 64, "-o", "json").stdout)
            for name in ("plain", "weighted")}
    assert cost["weighted"]["kl_mean"]["value"] < cost["plain"]["kl_mean"]["value"]


def test_the_short_form_quantizes_by_its_default_method_and_tunes(work):
    common = ["quantize", work / "model", "--text", work / "text.txt", "--sequences", 32, "--length",
              128, "--bits", 3, "--group-size", 4, "--format", "huggingface", "--eval", work / "text.txt"]
    succeed(*common, "--out", work / "q")
    succeed(*common, "--tune", "--out", work / "tuned")
    passes = json.loads((work / "q/manifest.json").read_text())["recipe"]["passes"]
    assert [name for step in passes for name in step] == ["quantize.awq", "quantize.gptq"]
    assert 0 < kl(work / "tuned") < kl(work / "q")  # on the text that it learnt from
    assert notes(work / "tuned", "tuned")


def test_the_short_form_measures_in_windows_that_the_model_reads(tmp_path):  # 512 tokens here
    make_text(tmp_path / "text.txt", 200)
    succeed("quantize", TINYWORLD / "teacher", "--method", "rtn", "--eval", tmp_path / "text.txt",
            "--out", tmp_path / "out")
    assert kl(tmp_path / "out") > 0


def test_results_and_samples_are_written_before_anything_is_printed(work):
    task = ["--task", f"perplexity:text={work / 'text.txt'},length=64,windows=2"]
    done = succeed("eval", work / "model", *task, "--results", work / "r.json", "-o", "json")
    assert json.loads((work / "r.json").read_text()) == json.loads(done.stdout)
    if not ARC.exists():
        pytest.skip(f"needs {ARC}")
    succeed("eval", work / "model", "--task", f"arc_easy:path={ARC.parent},limit=3", "--samples",
            work / "s.jsonl")
    lines = [json.loads(line) for line in (work / "s.jsonl").read_text().splitlines()]
    assert len(lines) == 3


def test_a_device_or_a_pipe_is_not_replaced_by_results(work):
    os.mkfifo(work / "pipe")
    done = attar("eval", work / "model", "--task", f"perplexity:text={work / 'text.txt'},length=64",
                 "--results", work / "pipe")
    assert done.returncode == 7 and "no regular file" in done.stderr, done.stderr
    assert (work / "pipe").is_fifo()


def spoiled(work, folder):
    """A model whose first neuron gives an infinity."""
    from safetensors.torch import load_file, save_file

    make_stories(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0] = 1e38
    save_file(tensors, folder / "model.safetensors")
    return folder


# A fallback is data in a run that is not strict, and a refusal in one that is.
def test_a_strict_run_refuses_a_fallback(work):
    recipe = recipe_for(work, model=str(spoiled(work, work / "spoiled")), eval=None)
    done = attar("run", write_recipe(work / "lenient.yaml", recipe), "--out", work / "lenient")
    strict = attar("run", write_recipe(work / "strict.yaml", recipe | {"strict": True}), "--out",
                   work / "strict")
    assert done.returncode == 0, done.stderr
    assert any(json.loads(line).get("fallback") for line in
               (work / "lenient/run.jsonl").read_text().splitlines())
    assert strict.returncode == 5 and "strict" in strict.stderr
    assert not (work / "strict").exists()


def test_a_store_serves_a_second_run(work):
    recipe = recipe_for(work, eval=None)
    recipe["calibration"]["store"] = str(work / "store.h5")
    path = write_recipe(work / "store.yaml", recipe)
    succeed("run", path, "--out", work / "first")
    succeed("run", path, "--out", work / "second")
    assert hashes(work / "first") == hashes(work / "second") != {}
    with h5py.File(work / "store.h5", "r+") as file:  # what it holds is what a run goes by
        for group in file["statistics"].values():
            group["gram"][...] = numpy.abs(group["gram"][...])
    succeed("run", path, "--out", work / "third")
    assert hashes(work / "third") != hashes(work / "first")


def test_a_file_of_somebody_else_is_no_store(work):
    with h5py.File(work / "theirs.h5", "w") as file:
        file["mine"] = [1, 2, 3]
    before = (work / "theirs.h5").read_bytes()
    recipe = recipe_for(work, eval=None)
    recipe["calibration"]["store"] = str(work / "theirs.h5")
    done = attar("run", write_recipe(work / "theirs.yaml", recipe), "--out", work / "never")
    assert done.returncode == 3 and "something else" in done.stderr
    assert (work / "theirs.h5").read_bytes() == before


@pytest.mark.parametrize("command", [["run", "r.yaml"], ["export", "model", "--format", "huggingface"],
                                     ["export", "model", "--format", "gguf"]],
                         ids=["run", "folder", "file"])
def test_replacing_removes_only_what_it_could_have_made(command, tmp_path):
    make_stories(tmp_path / "model")
    make_text(tmp_path / "text.txt")
    write_recipe(tmp_path / "r.yaml", recipe_for(tmp_path))
    theirs = tmp_path / "theirs"
    if "gguf" in command:
        theirs.write_text("diary")
    else:
        theirs.mkdir()
        (theirs / "diary").write_text("diary")
    done = attar(*command, "--out", theirs, "--replace", cwd=tmp_path)
    assert done.returncode == 2 and "remove it yourself" in done.stderr, done.stderr
    assert (theirs if theirs.is_file() else theirs / "diary").read_text() == "diary"
    for _ in range(2):  # but its own
        succeed(*command, "--out", tmp_path / "mine", "--replace", cwd=tmp_path)


@pytest.mark.parametrize("read", ["text", "teacher", "importance", "store"])
def test_replacing_never_removes_what_one_step_reads(read, tmp_path):
    make_stories(tmp_path / "model")
    make_text(tmp_path / "text.txt")
    mine = tmp_path / "mine"
    succeed("run", write_recipe(tmp_path / "first.yaml", recipe_for(tmp_path)), "--out", mine)
    recipe = recipe_for(tmp_path)
    if read == "text":
        make_text(mine / "text.txt")
        recipe["passes"] = [{"train.text": {"text": "mine/text.txt", "steps": 1}}]
    if read == "teacher":
        make_stories(mine / "teacher")
        recipe["passes"] = [{"distill": {"text": "text.txt", "teacher": "mine/teacher", "steps": 1}}]
    if read == "importance":
        succeed("importance", tmp_path / "model", "--text", tmp_path / "text.txt", "--length", 64,
                "--sequences", 4, "--out", mine / "i.gguf")
        recipe["export"] = [{"format": "gguf", "type": "F16", "importance": "mine/i.gguf", "path": "m.gguf"}]
    if read == "store":
        recipe["calibration"]["store"] = str(mine / "s.h5")  # that the run would make there
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    commands = [["run", write_recipe(tmp_path / "r.yaml", recipe)]]
    if read == "importance":
        commands.append(["export", tmp_path / "model", "--format", "huggingface", "--importance", mine / "i.gguf"])
    for command in commands:
        done = attar(*command, "--out", mine, "--replace")
        assert done.returncode == 2 and "replacing it would remove both" in done.stderr, done.stderr
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("out", [".", "model", "deep/.."])
def test_replacing_never_removes_what_is_read(out, tmp_path):
    make_stories(tmp_path / "model")
    make_text(tmp_path / "text.txt")
    (tmp_path / "deep").mkdir()
    recipe = write_recipe(tmp_path / "r.yaml", recipe_for(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in (["run", recipe], ["export", tmp_path / "model", "--format", "huggingface"]):
        done = attar(*command, "--out", tmp_path / out, "--replace")
        assert done.returncode == 2 and "replacing it would remove both" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
