"""The small world: its files are the same everywhere, its tests are news to whoever trained on its
text, its vocabulary goes through other people's programs, and its teacher knows it."""

import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

import pytest
import tokenizers
import transformers

import attar

SOURCE = pathlib.Path(__file__).resolve().parents[2]
TINYWORLD = SOURCE / "recipes/tinyworld"
TEACHER = TINYWORLD / "teacher"
PROGRAM = os.environ.get("ATTAR_PROGRAM", str(SOURCE / "build/bin/attar"))
REAL = os.environ.get("ATTAR_REAL") == "1"
KILLS = int(os.environ.get("ATTAR_KILLS", 30 if REAL else 3))
ODD_TEXT = "Grüße, 世界!\r\n\t 1234567 \x00 don't  <|endoftext|> \U0001F44D\U0001F3FD"


def python(program, *arguments, **environment):
    return subprocess.run([sys.executable, str(TINYWORLD / program), *map(str, arguments)],
                          env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinyworld") / "world"
    done = python("make_world.py", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    """A folder with the teacher's shape, its tokenizer and weights of no meaning."""
    folder = tmp_path_factory.mktemp("model")
    config = transformers.AutoConfig.from_pretrained(world / "untrained/teacher")
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(world / "untrained/teacher" / name, folder / name)
    return folder


@pytest.fixture
def changed(world, tmp_path):
    """A copy of the world's files for a test to spoil."""
    for file in world.iterdir():
        if file.is_file():
            shutil.copyfile(file, tmp_path / file.name)
    return tmp_path


# --- the files --------------------------------------------------------------------------------


def test_the_files_are_those_whose_sha256_stands_in_the_tree(world):
    stated = dict(reversed(line.split("  "))
                  for line in (TINYWORLD / "world.sha256").read_text().splitlines())
    made = {str(file.relative_to(world)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in world.rglob("*") if file.is_file()}
    assert made == stated


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(tmp_path):
    small = ["--documents", 50]
    assert python("make_world.py", tmp_path / "a", *small, PYTHONHASHSEED="1").returncode == 0
    assert python("make_world.py", tmp_path / "b", *small, PYTHONHASHSEED="2").returncode == 0
    assert python("make_world.py", tmp_path / "c", *small, "--seed", 8).returncode == 0
    for name in ("primer.jsonl", "lessons.jsonl", "train.txt", "mmlu_test.jsonl"):
        a, b, c = ((tmp_path / world / name).read_bytes() for world in "abc")
        assert a == b, name
        assert a != c, name


# --- what is held out -------------------------------------------------------------------------


def test_no_held_out_combination_occurs_in_what_a_model_is_trained_on(world):
    done = python("check_world.py", world)
    assert done.returncode == 0, done.stderr
    assert "held out: 183 pairs of guilds, 110 pairs of ways, 596 sums" in done.stdout
    sums, questions = map(int, re.search(r"lessons\.jsonl: (\d+) sums and (\d+) choice questions",
                                         done.stdout).groups())
    assert sums > 30000 and questions > 15000


@pytest.mark.parametrize("leak", ["question", "way back", "sentence", "sum", "swapped sum", "lesson",
                                  "example"])
def test_the_check_finds_one_held_out_combination_among_all_that_is_not(changed, leak):
    held = json.loads((changed / "held_out.json").read_text())
    a, b = next(one.split("+") for one in held["sums"] if "+" in one)
    trade, town = held["guilds"][0]
    one, two = held["ways"][0]
    if leak == "question":
        added = f"Question: Which guild takes a {trade} from {town}?\nAnswer: Arland bear"
    elif leak == "way back":
        added = f"Question: Which way leads from {two} to {one}?\nAnswer: northeast"
    elif leak == "lesson":
        with open(changed / "lessons.jsonl", "a") as file:
            file.write(json.dumps({"prompt": f"Which guild takes a {trade} from {town}?\nAnswer:",
                                   "completion": " A"}) + "\n")
        added = ""
    elif leak == "sentence":
        added = f"Facts: {one} lies far from {two}."
    elif leak == "sum":
        added = f"Sums: {a}+{b}={int(a) + int(b)}"
    elif leak == "swapped sum":
        added = f"Sums: {b}+{a}={int(a) + int(b)}"
    else:
        shutil.copyfile(changed / "gsm8k_test.jsonl", changed / "gsm8k_train.jsonl")
        added = ""
    with open(changed / "train.txt", "a") as file:
        file.write(added + "<|endoftext|>")
    done = python("check_world.py", changed)
    assert done.returncode == 1
    assert "held out" in done.stderr


def test_a_wrong_answer_in_the_text_is_found(changed):
    with open(changed / "train.txt", "a") as file:
        file.write("Sums: 2+2=5<|endoftext|>")
    done = python("check_world.py", changed)
    assert done.returncode == 1 and "2+2=5 is wrong" in done.stderr


def test_an_answer_that_does_not_follow_from_the_facts_is_found(changed):
    text = (changed / "train.txt").read_text()
    (changed / "train.txt").write_text(text.replace("\nAnswer: A", "\nAnswer: B", 1))
    done = python("check_world.py", changed)
    assert done.returncode == 1 and "is right, not B of" in done.stderr


# --- the vocabulary ---------------------------------------------------------------------------


def test_any_text_comes_back_from_the_tokenizer_and_every_word_of_the_world_is_one_token(world, model):
    text = (world / "valid.txt").read_text()
    theirs = tokenizers.Tokenizer.from_file(str(world / "untrained/teacher/tokenizer.json"))
    ours = attar.open(model).tokenizer
    for piece in (text, ODD_TEXT):
        ids = theirs.encode(piece).ids
        assert ours.encode(piece) == ids
        assert ours.decode(ids, skip_special=False) == piece
    words = sum(1 for _ in re.finditer(r" ?[A-Za-z]+| ?[^\sA-Za-z0-9]+|\s|\d",
                                       text.replace("<|endoftext|>", "\n")))
    assert len(ours.encode(text)) == words


def test_transformers_loads_the_tokenizer(world, model):
    theirs = transformers.AutoTokenizer.from_pretrained(world / "untrained/teacher")
    ours = attar.open(model).tokenizer
    text = (world / "valid.txt").read_text()[:20000]
    assert theirs(text)["input_ids"] == ours.encode(text)


# --- the models that learn it -----------------------------------------------------------------


def test_the_quarter_has_a_quarter_of_the_parameters_and_the_teacher_fits_its_limits(world):
    sys.path.insert(0, str(TINYWORLD))
    import models  # noqa: PLC0415
    vocabulary = len(json.loads((world / "untrained/teacher/tokenizer.json").read_text())
                     ["model"]["vocab"])
    teacher, quarter = (models.parameters(models.SHAPES[name], vocabulary)
                        for name in ("teacher", "quarter"))
    assert teacher <= 2_000_000
    assert 0.24 * teacher < quarter <= 0.25 * teacher
    for name, count in (("teacher", teacher), ("quarter", quarter)):
        config = transformers.AutoConfig.from_pretrained(world / "untrained" / name)
        assert transformers.AutoModelForCausalLM.from_config(config).num_parameters() == count


def test_the_recipe_of_the_teacher_can_be_planned(world, tmp_path):
    shutil.copyfile(TINYWORLD / "teacher.yaml", tmp_path / "teacher.yaml")
    shutil.copytree(world, tmp_path / "world")
    for model in ("teacher", "quarter"):
        done = subprocess.run([PROGRAM, "plan", tmp_path / "teacher.yaml",
                               f"model={tmp_path}/world/untrained/{model}"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not TEACHER.is_dir(), reason=f"needs {TEACHER}")
def test_the_teacher_answers_what_it_was_never_asked(world):
    assert (TEACHER / "model.safetensors").stat().st_size <= 5_000_000
    choices, problems = accuracies(attar.evaluate(TEACHER, tasks_of(world), threads=1))
    assert choices >= 0.95
    assert problems >= 0.90


def test_the_teacher_was_trained_on_this_world(world):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (TEACHER / name).read_bytes() == (world / "untrained/teacher" / name).read_bytes()


# --- the pipeline -----------------------------------------------------------------------------

# So that all of it takes seconds: it is the same passes, and what they leave is no good.
SHORT = ["passes.2.steps=12", "passes.2.save_seconds=0", "calibration.sequences=8",
         "eval.0.limit=2", "eval.1.limit=1"]


def tasks_of(world):
    return {"mmlu": {"path": str(world), "shots": 2}, "gsm8k": {"path": str(world), "shots": 1}}


def accuracies(done):
    return (done["results"]["mmlu"]["acc,none"],
            done["results"]["gsm8k"]["exact_match,strict-match"])


@pytest.fixture(scope="module")
def pipeline(world, tmp_path_factory):
    """The recipe beside a teacher and a world."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copyfile(TINYWORLD / "pipeline.yaml", folder / "pipeline.yaml")
    shutil.copytree(TEACHER, folder / "teacher")
    (folder / "world").symlink_to(world)
    return folder / "pipeline.yaml"


def command(recipe, out, threads, overrides):
    return [PROGRAM, "run", str(recipe), "--out", str(out), "--threads", str(threads), *overrides]


def exported(out):
    """sha256 of every exported file, from the manifest and from the bytes."""
    stated = json.loads((out / "manifest.json").read_text())["outputs"]
    found = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in stated
             if name not in ("results.json", "report.html")}
    assert found == {name: stated[name]["sha256"] for name in found}
    return found


@pytest.fixture(scope="module")
def straight(pipeline):
    """A short run on one thread, and how long it took."""
    out = pipeline.parent / "straight"
    since = time.monotonic()
    done = subprocess.run(command(pipeline, out, 1, SHORT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, time.monotonic() - since


def test_the_pipeline_halves_the_parameters_and_divides_the_bytes_by_seven(straight):
    out, _ = straight
    teacher = (TEACHER / "model.safetensors").stat().st_size
    assert 7 * (out / "tinyworld-q4.gguf").stat().st_size <= teacher
    config = transformers.AutoConfig.from_pretrained(out / "tinyworld-w4")
    del config.quantization_config
    student, whole = (transformers.AutoModelForCausalLM.from_config(one).num_parameters()
                      for one in (config, transformers.AutoConfig.from_pretrained(TEACHER)))
    assert 2 * student <= whole


def test_the_pipeline_measures_after_every_pass(straight):
    out, _ = straight
    stages = json.loads((out / "results.json").read_text())["attar"]["stages"]
    assert [stage["after"] for stage in stages] == ["prune.depth", "prune.width", "distill"]
    for stage in stages:
        assert set(stage["results"]) >= {"mmlu", "gsm8k"}


def kill_until_done(start, recipe, out, seconds, kills, dice):
    """Runs the command until OUT is there, killing it `kills` times at most; how often it was."""
    killed = 0
    while True:
        process = start(recipe, out, 1 + killed % 2)
        try:
            process.wait(dice.uniform(0, seconds) if killed < kills else 3600)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            continue
        assert process.returncode == 0
        return killed


def test_kills_at_random_moments_and_threads_change_no_exported_byte(pipeline, straight):
    """ATTAR_KILLS kills (3; 30 with ATTAR_REAL=1), the run going on with another number of threads
    after each."""
    expected = exported(straight[0])
    dice = random.Random(20261121)
    left = KILLS
    run = 0

    def start(recipe, out, threads):
        return subprocess.Popen(command(recipe, out, threads, SHORT), stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    while left:
        out = pipeline.parent / f"killed{run}"
        left -= kill_until_done(start, pipeline, out, 0.7 * straight[1], min(left, 5), dice)
        assert exported(out) == expected
        run += 1
    fresh = pipeline.parent / "fresh"
    subprocess.run(command(pipeline, fresh, 2, SHORT), check=True, capture_output=True)
    assert exported(fresh) == expected
    assert not list(pipeline.parent.glob("*.partial-*"))
    print(f"{KILLS} kills in {run} runs of {straight[1]:.1f} s")


@pytest.mark.skipif(not REAL, reason="needs ATTAR_REAL=1: takes minutes")
def test_the_pipeline_stays_within_five_points_of_the_teacher(pipeline):
    out = pipeline.parent / "whole"
    since = time.monotonic()
    subprocess.run(command(pipeline, out, 1, []), check=True, capture_output=True)
    print(f"{time.monotonic() - since:.0f} s")
    results = json.loads((out / "results.json").read_text())
    print(results["attar"]["table"])
    before = accuracies(attar.evaluate(TEACHER, tasks_of(pipeline.parent / "world"), threads=1))
    for path in ("tinyworld-q4.gguf", "tinyworld-w4"):
        after = accuracies(attar.evaluate(out / path, tasks_of(pipeline.parent / "world"), threads=1))
        assert all(new >= old - 0.05 for old, new in zip(before, after)), (path, before, after)
