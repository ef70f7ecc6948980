"""Bad inputs: each ends in its exit code with one message that names place and remedy, and leaves
nothing behind. A case prepares a folder that holds a whole model, text and recipe, spoils one thing,
and says what must come out."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Callable

import pytest

from attar_program import (PROGRAM, attar, make_stories, make_text, recipe_for, succeed,
                           write_recipe)

USAGE, BAD_INPUT, DOES_NOT_FIT, NUMERIC, IO = 2, 3, 4, 5, 7


@dataclass
class Case:
    name: str
    code: int
    says: str  # a part of the message: the place or the reason
    spoil: Callable  # (folder, recipe) -> further arguments of `run`, or None


CASES = []


def case(code, says):
    def add(function):
        CASES.append(Case(function.__name__, code, says, function))
        return function
    return add


# --- recipes ---------------------------------------------------------------------------------

def recipe_case(name, code, says, **changes):
    def spoil(folder, recipe):
        recipe.update(changes)
        for key in [key for key, value in changes.items() if value is ...]:
            del recipe[key]
    CASES.append(Case(name, code, says, spoil))


def gptq(**options):
    return [{"quantize.gptq": {"group_size": 32, "skip": ["down"], **options}}]


recipe_case("unknown_key", USAGE, "unknown key 'pases'", pases=[])
recipe_case("no_version", USAGE, "version is missing", version=...)
recipe_case("later_version", USAGE, "version", version=2)
recipe_case("no_model", USAGE, "model is missing", model=...)
recipe_case("model_is_a_number", USAGE, "model", model=3)
recipe_case("unknown_pass", USAGE, "unknown pass 'quantize.gptg'", passes=["quantize.gptg"])
recipe_case("unknown_pass_key", USAGE, "unknown key 'bitz'", passes=gptq(bitz=4))
recipe_case("nine_bits", USAGE, "bits must be in [2, 8]", passes=gptq(bits=9))
recipe_case("bits_as_text", USAGE, "bits", passes=gptq(bits="four"))
recipe_case("negative_group", USAGE, "group_size", passes=gptq(group_size=-32))
recipe_case("rule_without_match", USAGE, "matches no layer", passes=gptq(layers=["ffn.*"]))
recipe_case("empty_pattern", USAGE, "pattern", passes=gptq(layers=[""]))
recipe_case("group_that_does_not_divide", DOES_NOT_FIT, "group_size", passes=gptq(group_size=7))
recipe_case("passes_without_calibration", USAGE, "needs calibration text", calibration=...)
recipe_case("gate_without_bound", USAGE, "no bound", gate={})
recipe_case("gate_without_text", USAGE, "nothing to measure on", gate={"kl_mean": 1}, eval=[])
recipe_case("unknown_task", USAGE, "unknown task 'mmul'", eval=[{"mmul": {"path": "x"}}])
recipe_case("text_of_a_pass_that_is_not_there", IO, "passes[0] distill: text] there is no file 'nosuch.txt'",
            passes=[{"distill": {"text": "nosuch.txt", "steps": 1}}])
recipe_case("learning_beyond_the_positions", USAGE, "train.text] length 1024 exceeds the model's 512 positions",
            passes=[*gptq(), {"train.text": {"text": "text.txt", "steps": 1, "length": 1024}}])
recipe_case("a_teacher_that_is_no_model", BAD_INPUT, "text.txt",
            passes=[{"distill": {"text": "text.txt", "teacher": "text.txt", "steps": 1}}])
recipe_case("a_task_twice", USAGE, "eval[1] arc_easy] stands twice",
            eval=[{"arc_easy": {"path": "x"}}, {"arc_easy": {"path": "x", "shots": 2}}])
recipe_case("teacher_that_is_not_there", IO, "teacher: there is no 'nosuch'",
            passes=[{"distill": {"text": "text.txt", "teacher": "nosuch", "steps": 1}}])


@case(BAD_INPUT, "token '▁was' (id 286) of the student is none of the teacher's")
def a_teacher_with_another_token(folder, recipe):
    shutil.copytree(folder / "model", folder / "teacher")
    tokens = folder / "teacher/tokenizer.model"
    data = tokens.read_bytes()
    assert data.count("▁was".encode()) == 1
    tokens.write_bytes(data.replace("▁was".encode(), "▁wAs".encode()))
    recipe["passes"] = [{"distill": {"text": "text.txt", "teacher": "teacher", "steps": 1}}]


recipe_case("a_teacher_that_is_not_asked", USAGE, "cross_entropy asks no teacher",
            passes=[{"distill": {"text": "text.txt", "teacher": "model", "loss": "cross_entropy", "steps": 1}}])
recipe_case("ranks_that_keep_has_no_room_for", DOES_NOT_FIT, "raise keep or lower align",
            passes=[{"lowrank.svd": {"keep": 0.01}}])
recipe_case("fewer_bits_than_the_smallest_format", DOES_NOT_FIT, "the smallest format takes 3.25 bits a weight, and 3.1",
            passes=[{"quantize.fit": {"bits": 3.1, "widths": [3, 4], "group_sizes": [32, 64], "symmetric": True,
                                      "skip": ["down"]}}])
recipe_case("a_grid_that_fit_may_choose_and_the_file_lacks", DOES_NOT_FIT, "quantize.fit may choose this grid",
            passes=[{"quantize.fit": {"bits": 5, "widths": [4, 8], "skip": ["down"]}}],
            export=[{"format": "gguf", "type": "auto", "path": "m.gguf"}])
recipe_case("fit_without_a_group_that_divides", DOES_NOT_FIT, "mlp.down_proj: no format has groups that divide",
            passes=[{"quantize.fit": {"bits": 5}}])
recipe_case("rounding_behind_fit", USAGE, "has rounded already",
            passes=[{"quantize.fit": {"bits": 5, "skip": ["down"]}}, {"quantize.rtn": {"bits": 4, "group_size": 4}}])
recipe_case("learning_to_round_what_is_not_rounded", USAGE, "finds nothing in codes",
            passes=["quantize.autoround"])
recipe_case("learning_to_round_behind_fit", USAGE, "needs the weights as they were before rounding",
            passes=[{"quantize.fit": {"bits": 5, "skip": ["down"]}}, "quantize.autoround"])
recipe_case("learning_to_round_behind_corrections", USAGE, "needs the weights as they were before rounding",
            passes=[*gptq(), {"lowrank.correct": {"rank": 2, "skip": ["down"]}}, "quantize.autoround"])
recipe_case("learning_the_embedding_behind_fit", USAGE, "put passes.0 behind this one",
            passes=[{"quantize.fit": {"bits": 5, "skip": ["down"]}},
                    {"distill": {"text": "text.txt", "learn": ["embedding"], "steps": 1}}])
recipe_case("scales_of_nothing", USAGE, "distill finds nothing in codes",
            passes=[{"distill": {"text": "text.txt", "learn": ["scales"], "steps": 1}}])
recipe_case("tuning_of_what_is_not_rounded", USAGE, "passes.0] quantize.tune finds nothing in codes",
            passes=["quantize.tune"])
recipe_case("learning_behind_a_rounded_embedding", USAGE, "would change 'model.embed_tokens' that passes.0 has rounded",
            passes=[{"quantize.embedding": {"bits": 8, "group_size": 32}},
                    {"train.text": {"text": "text.txt", "learn": ["embedding"], "steps": 1}}])
recipe_case("fewer_channels_of_a_rounded_embedding", USAGE, "would change 'model.embed_tokens' that passes.0 has rounded",
            passes=[{"quantize.embedding": {"bits": 8, "group_size": 32}}, {"prune.width": {"hidden": 0.5, "align": 8}}])
recipe_case("pruning_that_takes_nothing", USAGE, "takes nothing away: of 172 stay multiples of 512, one at least; lower align",
            passes=[{"prune.width": {"ffn": 0.1, "align": 512}}])
recipe_case("refits_on_super_blocks", USAGE, "needs static_groups: true, refits: 0",
            passes=[{"quantize.gptq": {"type": "IQ4_NL", "refits": 1, "skip": ["down"]}}])
recipe_case("bits_beside_a_type", USAGE, "bits: 3 does nothing here", passes=gptq(type="Q5_0", bits=3, group_size=64))
recipe_case("bits_of_an_embedding_beside_a_type", USAGE, "quantize.embedding] bits: 3 does nothing here",
            passes=[{"quantize.embedding": {"type": "Q5_0", "bits": 3}}])
recipe_case("sparsity_of_a_pattern", USAGE, "sparsity: 0.7 does nothing here",
            passes=[{"prune.sparse": {"sparsity": 0.7}}])
recipe_case("refits_of_what_is_rounded", USAGE, "refits: 3 does nothing here",
            passes=[{"prune.sparse": {"bits": 4, "group_size": 4, "refits": 3}}])
recipe_case("refits_of_wanda", USAGE, "refits: 3 does nothing here", passes=[{"prune.sparse": {"method": "wanda", "refits": 3}}])
recipe_case("groups_of_what_is_not_rounded", USAGE, "group_size: 32 does nothing here",
            passes=[{"prune.sparse": {"group_size": 32}}])
recipe_case("damping_without_a_refit", USAGE, "damping: 0.5 does nothing here",
            passes=[{"lowrank.svd": {"refit": "none", "damping": 0.5}}])
recipe_case("correcting_what_nothing_has_changed", USAGE, "lowrank.correct finds nothing to make up for",
            passes=["lowrank.correct"])
recipe_case("correcting_behind_a_pass_on_the_whole_model", USAGE, "lowrank.correct finds nothing to make up for",
            passes=[*gptq(), "quantize.tune", "lowrank.correct"])
recipe_case("sharing_between_uneven_blocks", DOES_NOT_FIT, "share no basis; skip: [o, down]",
            passes=[{"prune.width": {"ffn": 0.75, "align": 4, "uniform": False}}, {"lowrank.share": {"layers": ["*"]}}])
recipe_case("rounded_activations_in_a_gguf", DOES_NOT_FIT, "rounds what it reads, which a GGUF file cannot say",
            passes=[{"quantize.rtn": {"type": "FP8", "activations": 8}}],
            export=[{"format": "gguf", "type": "F16", "path": "m.gguf"}])
recipe_case("rounded_activations_with_a_term_as_plain_values", DOES_NOT_FIT,
            "rounds what it reads, which plain values cannot say",
            passes=[{"quantize.rtn": {"type": "FP8", "activations": 8}}, {"lowrank.correct": {"rank": 2}}],
            export=[{"format": "huggingface", "path": "hf"}])
recipe_case("export_of_unknown_format", USAGE, "format", export=[{"format": "onnx", "path": "a"}])
recipe_case("export_out_of_the_folder", USAGE, "inside of the output folder",
            export=[{"format": "huggingface", "path": "../../a"}])
recipe_case("exports_that_overlap", USAGE, "overlap",
            export=[{"format": "huggingface", "path": "a"}] * 2)
recipe_case("export_type_unknown", USAGE, "Q9_9",
            export=[{"format": "gguf", "type": "Q9_9", "path": "a.gguf"}])
recipe_case("grid_that_the_format_cannot_hold", DOES_NOT_FIT, "W3 g32",
            passes=gptq(bits=3), export=[{"format": "compressed-tensors", "path": "a"}])
recipe_case("offsets_in_a_type_without", DOES_NOT_FIT, "Q4_0", passes=gptq(symmetric=False),
            export=[{"format": "gguf", "type": "Q4_0", "path": "a.gguf"}])
recipe_case("question_to_a_model_without_template", BAD_INPUT, "template", chat=["Hi?"])


def text_case(name, code, says, content):
    def spoil(folder, recipe):
        (folder / "r.yaml").write_bytes(content)
        return "keep"
    CASES.append(Case(name, code, says, spoil))


text_case("recipe_nested_10000_deep", BAD_INPUT, "r.yaml", b"a: " + b"[" * 10000 + b"]" * 10000)
text_case("recipe_nested_mappings", BAD_INPUT, "r.yaml", b"{a: " * 10000 + b"}" * 10000)
text_case("recipe_with_a_key_twice", BAD_INPUT, "seed", b"version: 1\nseed: 1\nseed: 2\n")
text_case("recipe_that_is_no_yaml", BAD_INPUT, "line", b"version: 1\n  passes: [\n")
text_case("recipe_that_is_no_utf8", BAD_INPUT, "UTF-8", b"version: 1\nmodel: \xff\xfe\n")
text_case("recipe_that_is_empty", USAGE, "mapping", b"")
text_case("recipe_that_is_a_list", USAGE, "mapping", b"[1, 2]")
text_case("recipe_of_two_documents", BAD_INPUT, "more than one", b"version: 1\n---\nversion: 1\n")
text_case("recipe_bomb", BAD_INPUT, "r.yaml", b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 10)) for i in range(9)))


@case(IO, "nowhere.yaml")
def recipe_that_is_not_there(folder, recipe):
    return ["--recipe", folder / "nowhere.yaml"]


@case(USAGE, "KEY=VALUE")
def override_without_value(folder, recipe):
    return ["passes"]


@case(USAGE, "passes.7.bits=3")
def override_out_of_the_list(folder, recipe):
    return ["passes.7.bits=3"]


@case(USAGE, "unknown key 'bitz'")
def override_of_an_unknown_key(folder, recipe):
    return ["passes.0.bitz=3"]


# --- texts and tasks -------------------------------------------------------------------------

@case(IO, "text.txt")
def calibration_that_is_not_there(folder, recipe):
    (folder / "text.txt").unlink()


@case(BAD_INPUT, "is empty")
def calibration_that_is_empty(folder, recipe):
    (folder / "text.txt").write_text("")


@case(BAD_INPUT, "sequences")
def calibration_that_is_too_short(folder, recipe):
    (folder / "text.txt").write_text("Once upon a time.")


@case(BAD_INPUT, "is no UTF-8 text: byte 17 ")
def calibration_that_is_no_utf8(folder, recipe):
    (folder / "text.txt").write_bytes(b"Once upon a time \xe9tait\n" * 200)


@case(IO, "text.txt")
def calibration_that_is_a_folder(folder, recipe):
    (folder / "text.txt").unlink()
    (folder / "text.txt").mkdir()


@case(BAD_INPUT, "is there and no HDF5 file; name another")
def statistics_into_a_file_of_another_kind(folder, recipe):
    (folder / "notes.txt").write_text("mine")
    recipe["calibration"]["store"] = str(folder / "notes.txt")


@case(USAGE, "positions")
def windows_longer_than_the_model(folder, recipe):
    recipe["calibration"]["length"] = 4096


@case(USAGE, "length 4096 exceeds the model's 512 positions")
def evaluated_windows_longer_than_the_model(folder, recipe):
    recipe["eval"][0]["divergence"]["length"] = 4096


@case(IO, "nothing.txt")
def evaluation_text_that_is_not_there(folder, recipe):
    recipe["eval"][0]["divergence"]["text"] = str(folder / "nothing.txt")


@case(BAD_INPUT, "less than one window")
def evaluation_text_that_is_too_short(folder, recipe):
    (folder / "short.txt").write_text("Once.")
    recipe["eval"][0]["divergence"]["text"] = str(folder / "short.txt")


@case(BAD_INPUT, "a.jsonl: line 2")
def calibration_with_a_broken_line(folder, recipe):
    (folder / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    recipe["calibration"]["text"] = str(folder / "a.jsonl")


@case(BAD_INPUT, "a.jsonl: line 1")
def evaluation_with_a_broken_line(folder, recipe):
    (folder / "a.jsonl").write_text('{"text": 3}\n')
    recipe["eval"][0]["divergence"]["text"] = str(folder / "a.jsonl")


@case(IO, "arc_easy")
def task_without_its_file(folder, recipe):
    recipe["eval"] = [{"arc_easy": {"path": str(folder)}}]


@case(BAD_INPUT, "tasks.jsonl:2")
def task_file_with_a_broken_line(folder, recipe):
    good = json.dumps({"query": "Question: a\nAnswer:", "choices": ["b", "c"], "gold": 0})
    (folder / "tasks.jsonl").write_text(good + "\n{\n")
    recipe["eval"] = [{"arc_easy": {"path": str(folder / "tasks.jsonl")}}]


@case(BAD_INPUT, "gold")
def task_file_without_answers(folder, recipe):
    (folder / "tasks.jsonl").write_text(json.dumps({"query": "Question: a\nAnswer:", "choices": ["b", "c"]}))
    recipe["eval"] = [{"arc_easy": {"path": str(folder / "tasks.jsonl")}}]


# --- safetensors and config.json -------------------------------------------------------------


def weights(folder):
    return folder / "model/model.safetensors"


def rewrite_header(folder, change):
    data = weights(folder).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    change(header)
    packed = json.dumps(header).encode()
    weights(folder).write_bytes(struct.pack("<Q", len(packed)) + packed + data[8 + size:])


def edit_config(folder, **changes):
    path = folder / "model/config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


@case(BAD_INPUT, "head size must be in [1, 256], got 320")
def heads_wider_than_the_kernels(folder, recipe):
    edit_config(folder, head_dim=320)


@case(BAD_INPUT, "has '600' (id 600), which tokenizer.model has not")
def added_tokens_in_a_form_of_their_own(folder, recipe):
    (folder / "model/tokenizer_config.json").write_text('{"added_tokens_decoder": {"600": "<pad>"}}')


@case(IO, "there")
def model_that_is_not_there(folder, recipe):
    recipe["model"] = str(folder / "nowhere")


@case(BAD_INPUT, "model")
def model_folder_without_weights(folder, recipe):
    weights(folder).unlink()


@case(BAD_INPUT, "config.json")
def model_folder_without_config(folder, recipe):
    (folder / "model/config.json").unlink()


@case(BAD_INPUT, "config.json")
def config_that_is_no_json(folder, recipe):
    (folder / "model/config.json").write_text("{")


@case(BAD_INPUT, "hidden_size")
def config_without_width(folder, recipe):
    edit_config(folder, hidden_size=...)


@case(BAD_INPUT, "config.json")
def config_with_negative_layers(folder, recipe):
    edit_config(folder, num_hidden_layers=-5)


@case(BAD_INPUT, "model")
def config_with_a_million_million_layers(folder, recipe):
    edit_config(folder, num_hidden_layers=10**12)


@case(BAD_INPUT, "heads")
def config_whose_heads_do_not_divide(folder, recipe):
    edit_config(folder, num_key_value_heads=3)


@case(BAD_INPUT, "mamba")
def config_of_another_family(folder, recipe):
    edit_config(folder, model_type="mamba", architectures=["MambaForCausalLM"])


@case(BAD_INPUT, "model.safetensors")
def safetensors_cut_in_half(folder, recipe):
    data = weights(folder).read_bytes()
    weights(folder).write_bytes(data[:len(data) // 2])


@case(BAD_INPUT, "model.safetensors")
def safetensors_of_five_bytes(folder, recipe):
    weights(folder).write_bytes(b"12345")


@case(BAD_INPUT, "model.safetensors")
def safetensors_with_a_header_of_exabytes(folder, recipe):
    data = weights(folder).read_bytes()
    weights(folder).write_bytes(struct.pack("<Q", 2**62) + data[8:])


@case(BAD_INPUT, "model.safetensors")
def safetensors_whose_header_is_no_json(folder, recipe):
    data = bytearray(weights(folder).read_bytes())
    data[9] = 0xff
    weights(folder).write_bytes(data)


@case(BAD_INPUT, "model.norm.weight")
def safetensors_with_an_offset_behind_the_end(folder, recipe):
    def change(header):
        header["model.norm.weight"]["data_offsets"] = [2**40, 2**40 + 256]
    rewrite_header(folder, change)


@case(BAD_INPUT, "model.safetensors")
def safetensors_with_a_shape_that_overflows(folder, recipe):
    def change(header):
        header["model.norm.weight"]["shape"] = [2**40, 2**40]
    rewrite_header(folder, change)


@case(BAD_INPUT, "model.norm.weight")
def safetensors_with_an_unknown_type(folder, recipe):
    def change(header):
        header["model.norm.weight"]["dtype"] = "Q5"
    rewrite_header(folder, change)


@case(BAD_INPUT, "model.layers.2.mlp.down_proj.weight")
def safetensors_without_a_tensor(folder, recipe):
    def change(header):
        entry = header.pop("model.layers.2.mlp.down_proj.weight")
        header["model.layers.2.mlp.up_and_down.weight"] = entry
    rewrite_header(folder, change)


@case(BAD_INPUT, "shape")
def safetensors_with_another_shape(folder, recipe):
    def change(header):
        entry = header["model.layers.2.mlp.down_proj.weight"]
        entry["shape"] = entry["shape"][::-1]
    rewrite_header(folder, change)


def make_index(folder, shard):
    names = json.loads(weights(folder).read_bytes()[8:8 + struct.unpack(
        "<Q", weights(folder).read_bytes()[:8])[0]])
    names.pop("__metadata__", None)
    index = {"metadata": {}, "weight_map": {name: shard for name in names}}
    (folder / "model/model.safetensors.index.json").write_text(json.dumps(index))


@case(BAD_INPUT, "outside")
def shards_that_point_out_of_the_folder(folder, recipe):
    make_index(folder, "../outside.safetensors")
    shutil.move(weights(folder), folder / "outside.safetensors")


@case(BAD_INPUT, "model-00001-of-00002.safetensors")
def shards_that_are_not_there(folder, recipe):
    make_index(folder, "model-00001-of-00002.safetensors")
    weights(folder).unlink()


def put_value(folder, tensor, value):
    data = bytearray(weights(folder).read_bytes())
    size = struct.unpack("<Q", data[:8])[0]
    begin = 8 + size + json.loads(data[8:8 + size])[tensor]["data_offsets"][0]
    data[begin + 40:begin + 44] = struct.pack("<f", value)
    weights(folder).write_bytes(data)


@case(NUMERIC, "model.layers.3")
def a_weight_that_is_nan(folder, recipe):
    put_value(folder, "model.layers.3.mlp.up_proj.weight", float("nan"))


@case(NUMERIC, "every calibration token has a NaN")
def a_weight_that_leaves_no_finite_input(folder, recipe):
    put_value(folder, "model.layers.3.post_attention_layernorm.weight", 1e30)
    recipe["passes"] = [{"quantize.gptq": {"group_size": 4, "layers": ["down"]}}]
    recipe["calibration"]["token_weights"] = "uniform"


@case(NUMERIC, "model.layers.0")
def a_weight_that_is_infinite(folder, recipe):
    put_value(folder, "model.layers.0.self_attn.q_proj.weight", float("inf"))


@case(BAD_INPUT, "tokenizer")
def model_without_tokenizer(folder, recipe):
    (folder / "model/tokenizer.model").unlink()


@case(BAD_INPUT, "has '<|im_start|>' (id 512), which tokenizer.model has not")
def tokens_beside_the_sentencepiece_model(folder, recipe):
    (folder / "model/added_tokens.json").write_text('{"<|im_start|>": 512}')


@case(BAD_INPUT, "tokenizer.model")
def tokenizer_that_is_cut(folder, recipe):
    data = (folder / "model/tokenizer.model").read_bytes()
    (folder / "model/tokenizer.model").write_bytes(data[:1000])


# --- GGUF ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    make_stories(folder / "model")
    succeed("export", folder / "model", "--format", "gguf", "--type", "F16", "--out",
            folder / "m.gguf")
    return (folder / "m.gguf").read_bytes()


def gguf_case(name, says, change):
    def spoil(folder, recipe):
        recipe["model"] = str(folder / "m.gguf")
        (folder / "m.gguf").write_bytes(change(bytearray((folder / "whole.gguf").read_bytes())))
    CASES.append(Case("gguf_" + name, BAD_INPUT, says, spoil))


def put(data, at, form, value):
    struct.pack_into(form, data, at, value)
    return data


gguf_case("cut_in_half", "m.gguf", lambda data: data[:len(data) // 2])
gguf_case("cut_in_its_header", "m.gguf", lambda data: data[:100])
gguf_case("with_another_magic", "m.gguf", lambda data: b"GGML" + data[4:])
gguf_case("of_version_99", "99", lambda data: put(data, 4, "<I", 99))
gguf_case("with_2_to_60_tensors", "m.gguf", lambda data: put(data, 8, "<Q", 2**60))
gguf_case("with_2_to_60_keys", "m.gguf", lambda data: put(data, 16, "<Q", 2**60))
gguf_case("with_a_key_of_exabytes", "m.gguf", lambda data: put(data, 24, "<Q", 2**62))
gguf_case("of_another_architecture", "mamba",
          lambda data: data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1))
gguf_case("without_a_tensor", "blk.2.ffn_down",
          lambda data: data.replace(b"blk.2.ffn_down.weight", b"blk.2.ffn_dawn.weight", 1))


# --- the output ------------------------------------------------------------------------------

@case(USAGE, "no folder")
def output_that_is_a_file(folder, recipe):
    (folder / "out").write_text("mine")


@case(USAGE, "not empty")
def output_that_is_not_empty(folder, recipe):
    (folder / "out").mkdir()
    (folder / "out/mine").write_text("mine")


@case(DOES_NOT_FIT, "/proc")
def output_where_nothing_has_room(folder, recipe):
    return ["--out", "/proc/attar/out"]


@case(IO, "text.txt")
def output_below_a_file(folder, recipe):
    return ["--out", folder / "text.txt/out"]


# --- all of them -----------------------------------------------------------------------------

def snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}


def arguments_of(folder, extra):
    recipe, out, rest = folder / "r.yaml", folder / "out", list(extra or [])
    for option in ("--recipe", "--out"):
        if option in rest:
            at = rest.index(option)
            value = rest[at + 1]
            del rest[at:at + 2]
            if option == "--recipe":
                recipe = value
            else:
                out = value
    return ["run", recipe, "--out", out, *rest]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, whole_gguf):
    folder = tmp_path_factory.mktemp("whole") / "w"
    make_stories(folder / "model")
    make_text(folder / "text.txt")
    (folder / "whole.gguf").write_bytes(whole_gguf)
    return folder


def test_the_unspoilt_folder_runs(whole, tmp_path):
    folder = tmp_path / "w"
    shutil.copytree(whole, folder)
    write_recipe(folder / "r.yaml", recipe_for(folder))
    succeed(*arguments_of(folder, []))


def test_there_are_at_least_sixty_cases():
    assert len(CASES) >= 60 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("spoilt", CASES, ids=lambda spoilt: spoilt.name)
def test_bad_input(spoilt, whole, tmp_path):
    folder = tmp_path / "w"
    shutil.copytree(whole, folder)
    recipe = recipe_for(folder)
    extra = spoilt.spoil(folder, recipe)
    if extra == "keep":
        extra = []
    else:
        write_recipe(folder / "r.yaml", recipe)
    before = snapshot(folder)
    done = attar(*arguments_of(folder, extra), timeout=60)
    assert done.returncode == spoilt.code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("attar: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0], done.stderr
    assert spoilt.says in errors[0]
    assert len(errors[0]) < 1000
    assert snapshot(folder) == before, "something was left behind"


@pytest.mark.parametrize("name", ["a_teacher_with_another_token", "ranks_that_keep_has_no_room_for",
                                  "fewer_bits_than_the_smallest_format"])
def test_plan_refuses_what_a_run_would(name, whole, tmp_path):
    folder = tmp_path / "w"
    shutil.copytree(whole, folder)
    recipe = recipe_for(folder)
    spoilt = next(case for case in CASES if case.name == name)
    spoilt.spoil(folder, recipe)
    write_recipe(folder / "r.yaml", recipe)
    done = attar("plan", folder / "r.yaml")
    assert done.returncode == spoilt.code and spoilt.says in done.stderr, done.stderr


@pytest.mark.parametrize("behind", [
    {"lowrank.svd": {"layers": ["model.layers.4.mlp.*"], "keep": 0.8}},
    {"quantize.fit": {"layers": ["model.layers.4.mlp.down_proj"], "embedding": False, "widths": [3],
                      "group_sizes": [0], "symmetric": True, "bits": 3.2}}], ids=lambda step: next(iter(step)))
def test_plan_leaves_widths_that_the_run_chooses_to_it(behind, whole, tmp_path):
    """Planned as the last block's, the narrow width may become any block's."""
    folder = tmp_path / "w"
    shutil.copytree(whole, folder)
    recipe = recipe_for(folder)
    recipe["passes"] = [{"prune.depth": {"unit": "mlp", "remove": 1}}, behind]
    recipe["export"] = [{"format": "gguf", "type": "F16", "path": "m.gguf"}]
    write_recipe(folder / "r.yaml", recipe)
    done = attar("plan", folder / "r.yaml")
    assert done.returncode == 0, done.stderr


def command_case(code, says, *arguments):
    return pytest.param(code, says, arguments, id=says.replace(" ", "_"))


@pytest.mark.parametrize("code, says, arguments", [
    command_case(USAGE, "counts by its completions", "eval", "{m}", "--task", "perplexity:text={a},length=8"),
    command_case(USAGE, "measured in float32", "eval", "{m}", "--teacher", "{m}", "--runtime", "quantized",
                 "--task", "divergence:text={t},length=64"),
    command_case(USAGE, "stands twice", "eval", "{m}", "--task", "arc_easy:path={t}", "--task", "arc_easy:path={t},shots=2"),
    command_case(USAGE, "exceeds the model's 512 positions", "compare", "{m}", "{m}", "--text", "{t}"),
    command_case(IO, "nowhere", "eval", "{m}", "--task", "arc_easy:path={t}", "--results", "{f}/nowhere/r.json"),
    command_case(IO, "nowhere", "importance", "{m}", "--text", "{t}", "--out", "{f}/nowhere/i.gguf"),
])
def test_bad_command(code, says, arguments, whole, tmp_path):
    answers = tmp_path / "a.jsonl"
    answers.write_text('{"prompt": "Once", "completion": " upon a time there was a girl."}\n' * 20)
    places = {"m": whole / "model", "t": whole / "text.txt", "a": answers, "f": tmp_path}
    done = attar(*(part.format(**places) for part in arguments), timeout=60)
    assert done.returncode == code and says in done.stderr, done.stderr
    assert done.stdout == "" and list(tmp_path.iterdir()) == [answers]


def test_an_importance_matrix_of_broken_inputs_is_refused(whole, tmp_path):
    shutil.copytree(whole / "model", tmp_path / "model")
    put_value(tmp_path, "model.layers.1.self_attn.k_proj.weight", float("nan"))
    done = attar("importance", tmp_path / "model", "--text", whole / "text.txt", "--sequences", 2,
                 "--length", 32, "--out", tmp_path / "i.gguf")
    assert done.returncode == NUMERIC and "blk.1.attn_output.weight" in done.stderr, done.stderr
    assert "of 64 calibration tokens have a NaN" in done.stderr and not (tmp_path / "i.gguf").exists()


def test_a_full_disk_is_found_before_anything_is_written(whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
                             capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        folder = tmp_path / "w"
        shutil.copytree(whole, folder)
        write_recipe(folder / "r.yaml", recipe_for(folder))
        done = attar("run", folder / "r.yaml", "--out", disk / "out")
        assert done.returncode == DOES_NOT_FIT and "free space" in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_result_that_cannot_be_printed_is_an_io_error():
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with open(full, "w") as out:
        done = subprocess.run([PROGRAM, "passes"], stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == IO and "stdout" in done.stderr


def as_nobody():
    """How subprocess becomes a user whom permissions bind."""
    return {"user": 65534} if os.geteuid() == 0 else {}


def test_no_permission_to_read_or_write(whole):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "w"
        shutil.copytree(whole, folder)
        write_recipe(folder / "r.yaml", recipe_for(folder))
        for path in (folder.parent, folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        command = list(map(str, [PROGRAM, *arguments_of(folder, [])]))
        try:
            done = subprocess.run(command, capture_output=True, text=True, **as_nobody())
            assert done.returncode == IO and "no permission to write" in done.stderr, done.stderr
            (folder / "model/model.safetensors").chmod(0)
            done = subprocess.run(command, capture_output=True, text=True, **as_nobody())
            assert done.returncode == IO and "model.safetensors" in done.stderr, done.stderr
        finally:
            for path in (folder.parent, folder, *folder.rglob("*")):
                path.chmod(0o755)
