"""A whole run on a tiny model: what it leaves, that threads and batch change no bit, that a repeated
or an interrupted command ends in the same files, and how it stops."""

import hashlib
import json
import pathlib
import re
import signal
import subprocess
import time

import pytest

from attar_program import (PROGRAM, attar, make_stories, make_text, recipe_for, succeed,
                           write_recipe)


@pytest.fixture
def work(tmp_path):
    make_stories(tmp_path / "model")
    make_text(tmp_path / "text.txt")
    return tmp_path


def hashes(folder):
    """Of every exported file; results and logs hold times."""
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob("*")) if file.is_file() and file.parent != folder}


def hash_of_the_sources():
    """As compress/pipeline/source_hash.cmake says."""
    root = pathlib.Path(__file__).resolve().parents[2]
    lines = [f"{path} {hashlib.sha256((root / path).read_bytes()).hexdigest()}\n"
             for path in sorted(str(file.relative_to(root)) for room in
                                ("compress", "distill", "eval", "lowrank", "prune", "quantize")
                                for file in (root / room).rglob("*")
                                if file.suffix in (".h", ".cpp"))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_run_leaves_exports_results_manifest_and_log(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work))
    done = succeed("run", recipe, "--out", work / "out")
    assert "KL to the original" in done.stdout
    names = sorted(entry.name for entry in (work / "out").iterdir())
    assert names == ["hf", "manifest.json", "report.html", "results.json", "run.jsonl"]
    assert not list(work.glob("out.partial-*"))
    manifest = json.loads((work / "out/manifest.json").read_text())
    for name, entry in manifest["outputs"].items():
        found = hashlib.sha256((work / "out" / name).read_bytes()).hexdigest()
        assert entry["sha256"] == found, name
    assert manifest["sources"] == hash_of_the_sources()  # of the program, and so part of run_id
    events = [json.loads(line) for line in (work / "out/run.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "start" and events[-1]["event"] == "done"
    assert sum(event["event"] == "block" for event in events) == 5
    results = json.loads((work / "out/results.json").read_text())
    kl = results["attar"]["texts"][0]["kl_mean"]["value"]
    assert 0 < kl < 1
    assert "tokenizer.model" in [entry.name for entry in (work / "out/hf").iterdir()]
    succeed("verify", work / "out")


def emptied(manifest):
    manifest["outputs"] = {}


def pointing_elsewhere(manifest):
    manifest["outputs"]["../text.txt"] = {"sha256": "0", "bytes": 1}


def without_hashes(manifest):
    manifest["outputs"]["results.json"] = 3


def without_recipe(manifest):
    del manifest["recipe"]


@pytest.mark.parametrize("edit, says", [(emptied, "no list of outputs"),
                                        (pointing_elsewhere, "outside of its folder"),
                                        (without_hashes, "is not as attar wrote it"),
                                        (without_recipe, "is not as attar wrote it")])
def test_verify_refuses_an_edited_manifest(edit, says, work):
    succeed("run", write_recipe(work / "r.yaml", recipe_for(work)), "--out", work / "out")
    manifest = json.loads((work / "out/manifest.json").read_text())
    edit(manifest)
    (work / "out/manifest.json").write_text(json.dumps(manifest))
    done = attar("verify", work / "out")
    assert done.returncode == 3 and says in done.stderr, done.stderr


def test_measuring_after_every_pass_says_what_each_left_and_changes_no_weight(work):
    passes = [{"prune.depth": {"remove": 1, "windows": 2}}, *recipe_for(work)["passes"]]
    plain = write_recipe(work / "plain.yaml", recipe_for(work, passes=passes))
    staged = write_recipe(work / "staged.yaml",
                          recipe_for(work, passes=passes, eval_after_every_pass=True))
    assert "prune.depth" not in succeed("run", plain, "--out", work / "plain").stdout
    shown = succeed("run", staged, "--out", work / "staged").stdout
    assert re.search(r"\|no pass +\| +0\|\n\|prune.depth +\|.*\n\|quantize.gptq\|", shown)
    results = json.loads((work / "staged/results.json").read_text())["attar"]
    [stage] = results["stages"]
    assert stage["after"] == "prune.depth"
    between, end = (texts[0]["kl_mean"]["value"] for texts in (stage["texts"], results["texts"]))
    assert between > 0 and end > 0 and between != end
    # Between the two passes stands what the first alone would have left.
    alone = write_recipe(work / "alone.yaml", recipe_for(work, passes=passes[:1]))
    succeed("run", alone, "--out", work / "alone")
    left = json.loads((work / "alone/results.json").read_text())["attar"]["texts"][0]
    assert left["kl_mean"] == stage["texts"][0]["kl_mean"]
    assert ((work / "plain/hf/model.safetensors").read_bytes()
            == (work / "staged/hf/model.safetensors").read_bytes())


def test_threads_and_batch_change_no_bit(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work))
    succeed("run", recipe, "--out", work / "a", "--threads", 1, "--batch", 1)
    succeed("run", recipe, "--out", work / "b", "--threads", 2, "--batch", 8)
    assert hashes(work / "a") == hashes(work / "b")


def test_the_same_command_again_does_nothing_and_another_is_refused(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work))
    first = succeed("run", recipe, "--out", work / "out")
    before = hashes(work / "out")
    again = succeed("run", recipe, "--out", work / "out")
    assert "complete already" in again.stderr and again.stdout == first.stdout
    other = attar("run", recipe, "--out", work / "out", "seed=4")
    assert other.returncode == 2 and "not empty" in other.stderr
    assert hashes(work / "out") == before
    succeed("run", recipe, "--out", work / "out", "seed=4", "--replace")


@pytest.mark.parametrize("changed", ["model/config.json", "model/tokenizer.model", "text.txt"])
def test_a_run_is_not_complete_where_a_file_has_changed(work, changed):
    """Neither what it answers with nor what it was measured on."""
    recipe = write_recipe(work / "r.yaml", recipe_for(work, calibration={"text": str(work / "other.txt"),
                                                                         "sequences": 4, "length": 32}))
    make_text(work / "other.txt")
    succeed("run", recipe, "--out", work / "out")
    data = (work / changed).read_bytes()
    (work / changed).write_bytes(data.replace(b"10000.0", b"20000.0") if changed.endswith("json") else
                                 data + b" " if changed.endswith("txt") else
                                 data.replace(b"upon", b"uqon"))
    assert (work / changed).read_bytes() != data
    again = attar("run", recipe, "--out", work / "out")
    assert again.returncode == 2 and "not empty" in again.stderr


def identity(recipe, out):
    succeed("run", recipe, "--out", out)
    return json.loads((out / "manifest.json").read_text())["run_id"]


def test_how_a_text_is_read_and_which_file_is_weighted_tell_runs_apart(work):
    (work / "text.jsonl").write_text('{"text": "Once upon a time there was a dog."}\n' * 40)
    (work / "same.txt").write_bytes((work / "text.jsonl").read_bytes())
    learning = {"steps": 1, "batch": 1, "length": 16}
    ids = {identity(write_recipe(work / f"{name}.yaml", recipe_for(work, eval=None, passes=[
        {"train.text": {**learning, "text": str(work / name)}}])), work / f"out-{name}")
           for name in ("text.jsonl", "same.txt")}
    assert len(ids) == 2
    succeed("importance", work / "model", "--text", work / "text.txt", "--sequences", 2, "--length", 32,
            "--out", work / "m.dat")
    gguf = [{"format": "gguf", "type": "F16", "path": f"{name}.gguf"} for name in "ab"]
    for at in (0, 1):
        exports = [{**one, "importance": str(work / "m.dat")} if i == at else one
                   for i, one in enumerate(gguf)]
        ids.add(identity(write_recipe(work / f"w{at}.yaml", recipe_for(
            work, eval=None, passes=None, calibration=None, export=exports)), work / f"w{at}"))
    assert len(ids) == 4


def longer(path):
    path.write_bytes(path.read_bytes() + b"mine")


def other_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [longer, other_byte])
def test_a_damaged_run_is_run_again_when_it_may_be_replaced(damage, work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work))
    succeed("run", recipe, "--out", work / "out")
    before = hashes(work / "out")
    damage(work / "out/hf/model.safetensors")
    assert "run the recipe again with --replace" in attar("verify", work / "out").stderr
    succeed("run", recipe, "--out", work / "out", "--replace")
    assert hashes(work / "out") == before


def test_a_run_is_complete_wherever_its_files_lie(work):
    (work / "here").mkdir()
    for name in ("model", "text.txt"):
        (work / name).rename(work / "here" / name)
    recipe = write_recipe(work / "here/r.yaml", recipe_for(work, model="model", calibration={
        "text": "text.txt", "sequences": 8, "length": 64}, eval=[{"divergence": {
            "text": "text.txt", "length": 64, "windows": 2}}]))
    succeed("run", recipe, "--out", work / "here/out")
    (work / "here").rename(work / "there")
    again = succeed("run", work / "there/r.yaml", "--out", work / "there/out")
    assert "complete already" in again.stderr


def test_a_whole_run_whose_name_was_taken_needs_nothing_but_its_name(work):
    """Blocks go when all but the last rename is done; the rename alone is made up for."""
    recipe = write_recipe(work / "r.yaml", recipe_for(work))
    run = subprocess.Popen(list(map(str, [PROGRAM, "run", recipe, "--out", work / "out"])),
                           stderr=subprocess.PIPE, text=True)
    while not list(work.glob("out.partial-*")):
        time.sleep(0.001)
    (work / "out").mkdir()
    (work / "out/mine").write_text("mine")
    assert run.wait(60) == 2
    said = run.stderr.read()
    assert "not empty" in said and "the run is whole in" in said
    [partial] = work.glob("out.partial-*")
    log = (partial / "run.jsonl").read_bytes()
    refused = attar("run", recipe, "--out", work / "out", "--replace")
    assert refused.returncode == 2 and "holds no manifest.json" in refused.stderr
    (work / "out/mine").rename(work / "out/manifest.json")  # as of another run
    succeed("run", recipe, "--out", work / "out", "--replace")
    assert not list(work.glob("out.partial-*"))
    assert (work / "out/manifest.json").read_text() != "mine"
    assert (work / "out/run.jsonl").read_bytes() == log
    succeed("verify", work / "out")


def test_the_original_is_no_folder_of_that_name(work):
    (work / "original").mkdir()
    recipe = write_recipe(work / "r.yaml", recipe_for(work, passes=[{"distill": {
        "text": "text.txt", "steps": 1, "batch": 1, "length": 64, "teacher": "original"}}]))
    planned = json.loads(succeed("plan", recipe, "-o", "json").stdout)
    assert planned["recipe"]["passes"][0]["distill"]["teacher"] == "original"


def test_each_text_has_its_line_in_the_results(work):
    make_text(work / "other.txt", 30)
    texts = [{"divergence": {"text": str(work / name), "length": length, "windows": 2}}
             for name, length in (("text.txt", 64), ("other.txt", 64), ("other.txt", 32))]
    recipe = write_recipe(work / "r.yaml", recipe_for(work, eval=texts))
    succeed("run", recipe, "--out", work / "out")
    found = json.loads((work / "out/results.json").read_text())
    assert sorted(found["results"]) == ["divergence", "divergence,other.txt",
                                        "divergence,other.txt,2"]
    first, second, third = found["attar"]["texts"]
    assert found["results"]["divergence,other.txt,2"]["kl_mean,none"] == third["kl_mean"]["value"]
    assert found["results"]["divergence"]["kl_mean,none"] == first["kl_mean"]["value"]
    assert found["results"]["divergence,other.txt"]["kl_mean,none"] == second["kl_mean"]["value"]


def test_a_gate_that_does_not_hold_ends_in_6(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work, gate={"kl_mean": 1e-9}))
    done = attar("run", recipe, "--out", work / "out")
    assert done.returncode == 6 and "kl_mean" in done.stderr
    assert not (work / "out").exists()
    # The blocks are kept: a wider gate needs no second quantization.
    wide = succeed("run", recipe, "--out", work / "out", "gate.kl_mean=1")
    log = (work / "out/run.jsonl").read_text()
    assert '"layer_restored"' in log and wide.returncode == 0


Q4 = {"format": "gguf", "type": "F16", "embedding": "Q4_0", "path": "q4.gguf"}
PLAIN = {"format": "gguf", "type": "F32", "path": "plain.gguf"}


def test_what_is_measured_is_the_file(work):
    """No pass rounds here, the format does."""
    recipe = write_recipe(work / "r.yaml", recipe_for(work, passes=[], export=[Q4]))
    shown = succeed("run", recipe, "--out", work / "out").stdout
    assert "Measured on q4.gguf as it was written." in shown
    own = json.loads((work / "out/results.json").read_text())["attar"]
    assert own["measured"] == "q4.gguf" and own["bits_per_weight"] == 16
    compared = json.loads(succeed(
        "compare", work / "model", work / "out/q4.gguf", "--text", work / "text.txt",
        "--length", "64", "--windows", "4", "-o", "json").stdout)
    assert compared["kl_mean"]["value"] == own["texts"][0]["kl_mean"]["value"] > 0.01


def test_another_file_that_rounds_is_measured_and_judged_too(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work, passes=[], export=[PLAIN, Q4],
                                                      gate={"kl_mean": 1e-3}))
    done = attar("run", recipe, "--out", work / "out")
    assert done.returncode == 6 and "q4.gguf: kl_mean is" in done.stderr, done.stderr
    assert not list(work.glob("out*"))
    succeed("run", recipe, "--out", work / "out", "gate.action=warn")
    own = json.loads((work / "out/results.json").read_text())["attar"]
    plain, rounded = own["exports"]
    assert own["texts"][0]["kl_mean"]["value"] < 1e-6 and "texts" not in plain
    assert rounded["texts"][0]["kl_mean"]["value"] > 0.01
    assert "KL to the original, nats, q4.gguf" in own["table"]


def test_a_gate_may_warn(work):
    gate = {"kl_mean": 1e-9, "action": "warn"}
    recipe = write_recipe(work / "r.yaml", recipe_for(work, gate=gate))
    done = succeed("run", recipe, "--out", work / "out")
    assert "gate not met" in done.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 75), (signal.SIGTERM, 75)])
def test_a_signal_stops_soon_and_the_same_command_goes_on(work, number, code):
    recipe = recipe_for(work)
    recipe["calibration"].update(sequences=100, length=64)
    make_text(work / "text.txt", 400)
    path = write_recipe(work / "r.yaml", recipe)
    process = subprocess.Popen([PROGRAM, "run", path, "--out", work / "out"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = None
    for _ in range(400):
        log = next(iter(work.glob("out.partial-*/run.jsonl")), None)
        if log or process.poll() is not None:
            break
        time.sleep(0.01)
    asked = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    if process.returncode == 0:
        pytest.fail("the run ended before the signal came; make it longer")
    assert process.returncode == code, errors
    assert time.monotonic() - asked < 5
    succeed("run", path, "--out", work / "out")
    succeed("run", path, "--out", work / "straight")
    assert hashes(work / "out") == hashes(work / "straight")


def test_plan_reads_headers_only_and_prints_both_forms(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(work))
    plan = json.loads(succeed("plan", recipe, "-o", "json").stdout)
    assert len(plan["tensors"]) == 5 * 7 + 1
    down = next(t for t in plan["tensors"] if t["name"].endswith("0.mlp.down_proj"))
    query = next(t for t in plan["tensors"] if t["name"].endswith("0.self_attn.q_proj"))
    assert "W4" in query["result_type"] and "W4" not in down["result_type"]
    assert plan["peak_bytes"] > 0 and plan["disk_bytes"] > 0
    assert "model.layers.0.self_attn.q_proj and 4 like it" in succeed("plan", recipe).stdout


@pytest.mark.parametrize("name, options, often", [
    ("train.text", {"text": "text.txt"}, "steps"), ("distill", {"text": "text.txt"}, "steps"),
    ("quantize.tune", {}, "epochs")])
def test_the_planned_time_follows_what_is_learnt(name, options, often, work):
    def operations(count):
        recipe = recipe_for(work)
        learning = {name: {**options, often: count}}
        recipe["passes"] = [*recipe["passes"], learning] if often == "epochs" else [learning]
        plan = json.loads(succeed("plan", write_recipe(work / "r.yaml", recipe), "-o", "json").stdout)
        return plan["phases"][0]["seconds"] * plan["gemm_flops"]

    assert 1.9 < operations(4000) / operations(2000) < 2.1


CALIBRATED = ["--text", "text.txt", "--sequences", 8, "--length", 64]


@pytest.mark.parametrize("words", [
    ["quantize", "model", "--method", "rtn", "--group-size", 4, "--format", "huggingface"],
    ["prune", "model", "remove=1", "windows=2", "--method", "depth", *CALIBRATED],
    ["factorize", "model", "keep=0.9", "align=1", *CALIBRATED],
    ["distill", "model", "steps=2", "batch=1", "length=64", "--text", "text.txt"],
], ids=lambda words: words[0])
def test_short_form_prints_the_recipe_that_gives_the_same_bytes(words, work, monkeypatch):
    monkeypatch.chdir(work)
    arguments = words
    printed = succeed(*arguments, "--print-recipe").stdout
    (work / "printed.yaml").write_text(printed)
    succeed(*arguments, "--out", work / "short")
    succeed("run", work / "printed.yaml", "--out", work / "long")
    assert hashes(work / "short") == hashes(work / "long")


def test_a_list_for_a_single_value_is_a_sweep_with_its_best_marked(work):
    recipe = write_recipe(work / "r.yaml", recipe_for(
        work, gate={"kl_mean": 0.2, "action": "stop"},
        export=[{"format": "compressed-tensors", "path": "hf", "two_bits": True}]))
    done = attar("run", recipe, "--out", work / "out", "passes.0.bits=[2, 4, 8]")
    table = [line for line in done.stdout.splitlines() if line.startswith("|passes.0.bits=")]
    assert [line.split("|")[1] for line in table] == ["passes.0.bits=4", "passes.0.bits=8"]
    assert all(line.rstrip("| ").endswith("*") for line in table)
    refusal = done.stdout.splitlines()[-1]
    assert done.returncode == 6 and refusal.startswith("passes.0.bits=2: [") and "gate" in refusal
    finished = [entry.name for entry in (work / "out").iterdir() if "partial" not in entry.name]
    assert sorted(finished) == ["passes.0.bits=4", "passes.0.bits=8"]
    assert succeed("report", work / "out").stdout.splitlines()[2:] == table
    alone = succeed("run", recipe, "--out", work / "alone", "passes.0.bits=4")
    assert hashes(work / "alone") == hashes(work / "out/passes.0.bits=4"), alone.stderr
    assert succeed("report", work / "alone").stdout.split("|")[:40] == alone.stdout.split("|")[:40]
    assert attar("report", work / "model").returncode == 7
    (work / "model/results.json").write_text("{}")  # another program's
    assert attar("report", work / "model").returncode == 7
    found = json.loads(attar("run", recipe, "--out", work / "out", "passes.0.bits=[2, 4, 8]",
                             "-o", "json").stdout)
    assert list(found) == ["passes.0.bits=2", "passes.0.bits=4", "passes.0.bits=8"]
    assert "gate" in found["passes.0.bits=2"]["refused"] and "attar" in found["passes.0.bits=4"]
