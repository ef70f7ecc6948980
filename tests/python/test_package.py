"""The package attar gives what the program gives, says errors by type, and its stubs are true."""

import ast
import hashlib
import inspect
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

import attar
from attar_program import (SOURCE, STORIES, make_stories, make_text, recipe_for, succeed,
                           write_recipe)

ARC = SOURCE.parent / "shared/data/eval/arc_easy_test.jsonl"
CHANGED = {"bits": 3, "group_size": 4, "symmetric": True}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a model, the same model rounded to 3 bits, and a text."""
    folder = tmp_path_factory.mktemp("package")
    make_stories(folder / "model")
    make_text(folder / "text.txt")
    attar.run(recipe_for(folder, calibration=None, passes=[{"quantize.rtn": CHANGED}], eval=None),
              out=folder / "rounded")
    return folder


def printed(*arguments):
    return json.loads(succeed(*arguments, "-o", "json").stdout)


def without_times(value):
    """Results without what differs between two runs of the same recipe."""
    varying = ("seconds", "phase_seconds", "peak_rss_bytes", "out")
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in varying}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def file_hashes(folder):
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("*") if file.is_file() and file.parent != folder}


# --- open -------------------------------------------------------------------------------------


def test_open_says_what_inspect_says(work):
    model, found = attar.open(work / "model"), printed("inspect", work / "model")
    assert model.config == {key: found[key] for key in model.config}
    assert model.tensors == found["tensors"]
    assert (model.path, model.format, model.layers) == (found["path"], found["format"], 5)
    assert "5 layers" in repr(model)


def test_generate_gives_the_text_and_ids_of_the_program(work):
    ours = attar.open(work / "model").generate("Once upon a time", max_new_tokens=12)
    theirs = printed("generate", work / "model", "--prompt", "Once upon a time", "--tokens", 12)
    assert ours.prompt_ids == theirs["prompt_ids"]
    assert ours.ids == theirs["ids"] and ours.text == theirs["text"]


def test_generate_answers_on_codes_and_with_short_keys_as_the_program_does(work):
    model = attar.open(work / "model")
    for runtime, bits in (("quantized", 32), ("dense", 4), ("quantized", 8)):
        ours = model.generate("Once upon a time", max_new_tokens=24, runtime=runtime, kv_bits=bits)
        theirs = printed("generate", work / "model", "--prompt", "Once upon a time", "--tokens", 24,
                         "--runtime", runtime, "--kv-bits", bits)
        assert ours.ids == theirs["ids"], (runtime, bits)
    with pytest.raises(attar.UsageError, match="dense or quantized, got 'fast'"):
        model.generate("Once", runtime="fast")
    with pytest.raises(attar.UsageError, match="kv_bits"):
        model.generate("Once", kv_bits=5)


def test_compare_with_short_keys_sees_what_they_cost(work):
    def kl(bits):
        found = attar.compare(work / "model", work / "model", text=work / "text.txt", length=128,
                              windows=4, kv_bits=bits)
        return found["kl_mean"]["value"]

    assert kl(32) == 0 < kl(8) < kl(4)


def test_greedy_ids_are_where_the_logits_are_largest(work):
    model = attar.open(work / "model")
    prompt = model.tokenizer.encode("Once upon a time", add_special=True)
    new = model.generate(prompt, max_new_tokens=6).ids
    logits = model.logits(prompt + new)
    assert logits.dtype == torch.float32 and logits.shape == (len(prompt) + 6, 512)
    assert logits[len(prompt) - 1:-1].argmax(-1).tolist() == new


def test_logits_of_a_prefix_are_the_prefix_of_the_logits(work):
    model = attar.open(work / "model")
    ids = torch.arange(3, 40)
    assert torch.equal(model.logits(ids)[:9], model.logits(ids[:9]))


def test_the_tokenizer_decodes_what_it_encodes(work):
    tokenizer = attar.open(work / "model").tokenizer
    text = "Lily had a naïve café ball."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text, add_special=True) == [tokenizer.bos, *tokenizer.encode(text)]
    assert tokenizer.vocabulary_size == 512 and tokenizer.chat_template is None


def test_a_model_without_tokenizer_takes_ids_only():
    if not STORIES.is_dir():
        pytest.skip(f"needs {STORIES}")
    model = attar.open(STORIES)
    assert model.tokenizer is None
    assert model.generate([1, 403], max_new_tokens=2).text is None
    with pytest.raises(attar.UsageError, match="no tokenizer"):
        model.generate("Once")


# --- the pipeline -----------------------------------------------------------------------------


@pytest.mark.parametrize("as_mapping", [False, True])
def test_run_leaves_the_bytes_and_results_of_the_program(work, tmp_path, as_mapping):
    recipe = recipe_for(work)
    path = write_recipe(tmp_path / "recipe.yaml", recipe)
    told = printed("run", path, "--out", tmp_path / "theirs", "passes.0.bits=3", "--batch", 2)
    done = attar.run(recipe if as_mapping else path, out=tmp_path / "ours",
                     overrides={"passes.0.bits": 3}, threads=1, batch=1)
    assert without_times(done.results) == without_times(told)
    assert file_hashes(tmp_path / "ours") == file_hashes(tmp_path / "theirs")
    assert done.manifest == json.loads((tmp_path / "ours/manifest.json").read_text())
    assert done.exports == [tmp_path / "ours/hf"] and done.exports[0].is_dir()
    assert "KL to the original" in done.table and not done.was_complete
    assert attar.run(path, out=tmp_path / "ours", overrides={"passes.0.bits": 3}).was_complete


def test_plan_says_what_the_program_says(work, tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml", recipe_for(work))
    ours, theirs = attar.plan(path, overrides={"passes.0.bits": 8}), printed(
        "plan", path, "passes.0.bits=8")
    assert ours["tensors"] == theirs["tensors"] and ours["recipe"] == theirs["recipe"]
    assert ours["disk_bytes"] == theirs["disk_bytes"]


def test_evaluate_gives_the_results_of_the_program(work):
    text = work / "text.txt"
    tasks = {"perplexity": {"text": str(text), "length": 64, "windows": 6}}
    options = [f"perplexity:text={text},length=64,windows=6"]
    if ARC.exists():
        tasks["arc_easy"] = {"path": str(ARC.parent), "limit": 12}
        options.append(f"arc_easy:path={ARC.parent},limit=12")
    options = [word for task in options for word in ("--task", task)]
    model, rounded = work / "model", work / "rounded/hf"
    assert without_times(attar.evaluate(rounded, tasks)) == without_times(
        printed("eval", rounded, *options))
    paired = attar.evaluate(rounded, tasks, teacher=model)
    assert without_times(paired) == without_times(
        printed("eval", rounded, "--teacher", model, *options))
    assert paired["attar"]["texts"][0]["kl_mean"]["value"] > 0
    on_codes = {name: task for name, task in tasks.items() if name != "perplexity"}
    if on_codes:
        assert without_times(attar.evaluate(rounded, on_codes, teacher=model, runtime="quantized")) == without_times(
            printed("eval", rounded, "--teacher", model, "--runtime", "quantized", *options[2:]))
    as_list = attar.evaluate(rounded, [{name: entry} for name, entry in tasks.items()])
    assert without_times(as_list) == without_times(attar.evaluate(rounded, tasks))


def test_compare_gives_what_the_program_gives(work):
    ours = attar.compare(work / "model", work / "rounded/hf", text=work / "text.txt", length=64,
                         windows=5)
    assert ours == printed("compare", work / "model", work / "rounded/hf", "--text",
                           work / "text.txt", "--length", 64, "--windows", 5)


def test_passes_are_those_of_the_program():
    assert attar.passes() == printed("passes")


# --- errors, signals, threads -----------------------------------------------------------------


@pytest.mark.parametrize("call, error, base, words", [
    (lambda w: attar.open(w / "nothing"), attar.IoError, RuntimeError, "no such file"),
    (lambda w: attar.open(w / "text.txt"), attar.BadInput, ValueError, "text.txt"),
    (lambda w: attar.open(w / "model").logits([]), attar.UsageError, ValueError, "at least one"),
    (lambda w: attar.open(w / "model").logits([[1]]), attar.UsageError, ValueError, "2 dimensions"),
    (lambda w: attar.open(w / "model").logits([-1]), attar.UsageError, ValueError, "-1"),
    (lambda w: attar.open(w / "model").logits([512]), attar.BadInput, ValueError, "512"),
    (lambda w: attar.open(w / "model").logits([1] * 4000), attar.UsageError, ValueError, "exceed"),
    (lambda w: attar.open(w / "model").generate("", max_new_tokens=0), attar.UsageError,
     ValueError, "new ones"),
    (lambda w: attar.plan({"version": 1, "modell": "x"}), attar.UsageError, ValueError, "modell"),
    (lambda w: attar.plan(recipe_for(w), threads=-1), attar.UsageError, ValueError, "threads"),
    (lambda w: attar.plan(recipe_for(w), overrides={"passes.0.bits": 99}), attar.UsageError,
     ValueError, "bits"),
    (lambda w: attar.plan(recipe_for(w), overrides={"passes.0.group_size": 24}),
     attar.DoesNotFit, RuntimeError, "24"),
    (lambda w: attar.evaluate(w / "model", {"arc_hard": {}}), attar.UsageError, ValueError,
     "arc_hard"),
    (lambda w: attar.run(recipe_for(w, gate={"kl_mean": 1e-9}), out=w / "gated"), attar.GateNotMet,
     RuntimeError, "kl_mean"),
])
def test_errors_have_types_and_say_where(work, call, error, base, words):
    with pytest.raises(error, match=re.escape(words)) as caught:
        call(work)
    assert isinstance(caught.value, base)


def test_options_are_named():
    for function in (attar.run, attar.plan, attar.evaluate, attar.compare, attar.Model.generate):
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        assert inspect.Parameter.KEYWORD_ONLY in kinds


def test_other_python_threads_go_on_while_attar_works(work):
    model = attar.open(work / "model")
    ids = torch.arange(3, 500)
    count, ended = 0, threading.Event()

    def work_on():
        for _ in range(5):
            model.logits(ids)
        ended.set()

    worker = threading.Thread(target=work_on)
    worker.start()
    while not ended.wait(0.001):
        count += 1
    worker.join()
    assert count > 2  # with the GIL held this thread would see the end at once


@pytest.mark.parametrize("whole", [False, True], ids=["block by block", "a pass on the whole model"])
def test_ctrl_c_becomes_keyboard_interrupt_and_the_run_goes_on_later(whole, work, tmp_path):
    text = str(make_text(tmp_path / "long.txt", 400))
    recipe = recipe_for(work, calibration={"text": text, "sequences": 100, "length": 64})
    if whole:
        recipe["passes"] = [{"train.text": {"text": text, "steps": 40000, "batch": 1, "length": 64}}]
    path = write_recipe(tmp_path / "recipe.yaml", recipe)
    program = (f"import attar\ntry: attar.run({str(path)!r}, out={str(tmp_path / 'out')!r})\n"
               "except KeyboardInterrupt: print('stopped'); raise SystemExit(9)\n")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    for _ in range(6000):
        if process.poll() is not None or next(tmp_path.glob("out.partial-*/run.jsonl"), None):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 9 and said.strip() == "stopped"
    assert not (tmp_path / "out").exists()
    assert whole or attar.run(path, out=tmp_path / "out").results


# --- the package itself -----------------------------------------------------------------------


def test_the_callers_threads_are_given_back(work):
    before = torch.get_num_threads()
    try:
        for own, asked in ((1, 2), (2, 1)):
            torch.set_num_threads(own)
            attar.compare(work / "model", work / "rounded/hf", text=work / "text.txt", length=64,
                          windows=1, threads=asked)
            assert torch.get_num_threads() == own
            if "MKL" in torch.__config__.show():
                assert f"mkl_get_max_threads() : {own}" in torch.__config__.parallel_info()
    finally:
        torch.set_num_threads(before)


def test_one_openmp_serves_torch_and_attar():
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert len(set(re.findall(r"\S+/lib[gi]omp\S*", maps))) == 1


def test_another_torch_is_refused(tmp_path):
    program = "import torch; torch.__version__ = '2.12.0'; import attar"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "built against torch" in done.stderr


def stub_signatures():
    """{name: [argument names with '*' before keyword-only ones]} of _attar.pyi; None: a class."""
    tree = ast.parse((pathlib.Path(attar.__file__).parent / "_attar.pyi").read_text())
    found = {}
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = node.name + "." if isinstance(node, ast.ClassDef) else ""
        if prefix:
            found[node.name] = None
        for item in inside:
            if isinstance(item, ast.FunctionDef):
                is_property = any(getattr(d, "id", "") == "property" for d in item.decorator_list)
                names = [a.arg for a in item.args.args]
                names += ["*", *(a.arg for a in item.args.kwonlyargs)] * bool(item.args.kwonlyargs)
                found[prefix + item.name] = None if is_property else names
    return found


def module_signatures():
    def arguments(function):
        inside = re.match(r"\w+\((.*)\) -> ", function.__doc__).group(1)
        inside = re.sub(r"\[[^][]*\]", "", re.sub(r"\[[^][]*\]", "", inside))
        return [part.split(":")[0].split("=")[0].strip() for part in inside.split(",") if part]

    found = {}
    for name, value in vars(attar._attar).items():
        if name.startswith("__"):
            continue
        if not inspect.isclass(value):
            found[name] = arguments(value)
            continue
        found[name] = None
        for member, entry in vars(value).items():
            if isinstance(entry, property):
                found[f"{name}.{member}"] = None
            elif callable(entry) and (not member.startswith("_") or member == "__init__"):
                if entry.__doc__ and "->" in entry.__doc__:
                    found[f"{name}.{member}"] = arguments(entry)
    return found


def test_the_stubs_name_what_the_module_has():
    ours, theirs = stub_signatures(), module_signatures()
    theirs.pop("Tokenizer.__init__", None)
    assert ours == theirs


def test_the_package_says_that_it_is_typed():
    folder = pathlib.Path(attar.__file__).parent
    assert (folder / "py.typed").exists()
    assert set(attar.__all__) <= set(vars(attar))
    for name in attar.__all__:
        assert getattr(attar, name).__doc__, name
