"""The subcommands that need no run, and the exit codes."""

import json
import struct

import pytest

from attar_program import attar, make_stories, make_text, succeed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_stories(tmp_path_factory.mktemp("stories") / "model")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return make_text(tmp_path_factory.mktemp("text") / "text.txt")


def test_results_go_to_stdout_and_help_ends_in_0():
    for arguments in (["--help"], ["--version"], ["run", "--help"]):
        done = succeed(*arguments)
        assert done.stdout and not done.stderr


# libgomp prints what it reads when it is loaded. Twice would mean that LibTorch had started twice.
@pytest.mark.parametrize("given, expected", [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_spin_briefly_and_the_libraries_start_once(given, expected):
    done = succeed("--version", environment={"OMP_DISPLAY_ENV": "VERBOSE", **given})
    lines = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    assert [line.split("'")[1] for line in lines] == [expected]


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["run"], ["run", "--out"],
                                       ["plan", "x", "-o", "xml"], ["doctor", "--threads", "many"]])
def test_a_wrong_command_line_is_one_line_and_2(arguments):
    done = attar(*arguments)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith("attar: ")
    assert done.stderr.count("\n") == 1


def test_inspect_says_what_the_model_holds(model):
    found = json.loads(succeed("inspect", model, "-o", "json").stdout)
    assert found["layers"] == 5 and found["hidden"] == 64 and found["tied_head"]
    assert found["parameters"] == 260032
    assert "F32: 36 matrices" in succeed("inspect", model).stdout


def test_inspect_needs_no_tokenizer_that_attar_reads(model, tmp_path):
    succeed("export", model, "--format", "gguf", "--type", "F16", "--out", tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    kind = b"tokenizer.ggml.model" + struct.pack("<IQ", 8, 5)
    assert kind + b"llama" in data
    (tmp_path / "m.gguf").write_bytes(data.replace(kind + b"llama", kind + b"other"))
    found = json.loads(succeed("inspect", tmp_path / "m.gguf", "-o", "json").stdout)
    assert found["layers"] == 5 and "unknown tokenizer model 'other'" in found["tokenizer_error"]
    assert attar("generate", tmp_path / "m.gguf", "--prompt", "Once").returncode == 3


def test_an_end_token_of_minus_one_is_none(tmp_path):
    model = make_stories(tmp_path / "model")
    (model / "generation_config.json").write_text('{"eos_token_id": [-1, 2]}')
    assert "tokenizer_error" not in json.loads(succeed("inspect", model, "-o", "json").stdout)


def test_tensors_that_the_index_leaves_out_are_named(tmp_path):
    model = make_stories(tmp_path / "model")
    data = (model / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    names = [name for name in json.loads(data[8:8 + size]) if name != "__metadata__"]
    extra = {"spare": {"dtype": "F32", "shape": [0], "data_offsets": [len(data) - 8 - size] * 2}}
    header = json.dumps(json.loads(data[8:8 + size]) | extra).encode()
    (model / "model.safetensors").rename(model / "a.safetensors")
    (model / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size:])
    (model / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {name: "a.safetensors" for name in names}}))
    [said] = json.loads(succeed("inspect", model, "-o", "json").stdout)["left_out"]
    assert "'spare'" in said


def test_generate_is_greedy_and_repeats(model):
    one = succeed("generate", model, "--prompt", "Once upon a time", "--tokens", 12).stdout
    two = succeed("generate", model, "--prompt", "Once upon a time", "--tokens", 12).stdout
    assert one == two and "there was" in one


def test_chat_without_a_template_is_refused(model):
    done = attar("generate", model, "--chat", "Hi?")
    assert done.returncode == 3 and "template" in done.stderr


def test_compare_with_itself_is_zero(model, text):
    found = json.loads(succeed("compare", model, model, "--text", text, "--length", 64,
                               "-o", "json").stdout)
    assert found["kl_mean"]["value"] == 0 and found["top1"]["value"] == 1


def test_eval_of_a_text_agrees_with_compare(model, text):
    alone = json.loads(succeed("eval", model, "--task", f"perplexity:text={text},length=64", "-o",
                               "json").stdout)
    paired = json.loads(succeed("compare", model, model, "--text", text, "--length", 64, "-o",
                                "json").stdout)
    value = alone["attar"]["texts"][0]["perplexity"]["value"]
    assert value == pytest.approx(paired["perplexity_before"]["value"], rel=1e-5)


def test_export_and_verify_against_the_source(model, tmp_path):
    succeed("export", model, "--format", "gguf", "--type", "F32", "--out", tmp_path / "m.gguf")
    found = json.loads(succeed("verify", tmp_path / "m.gguf", "--against", model, "-o",
                               "json").stdout)
    assert found["max_difference"] <= 1e-4 * found["max_logit"]


def test_lists_and_doctor(model):
    assert "quantize.gptq" in succeed("passes").stdout
    assert "smollm2.yaml" in succeed("recipes").stdout
    found = json.loads(succeed("doctor", "-o", "json").stdout)
    assert found["threads"] >= 1 and found["folders"]
