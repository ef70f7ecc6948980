"""Exported files are what the programs they are for say they are: transformers,
compressed-tensors and gguf read them and hold the very values that attar computes with.

Drives build/bin/convert_model (ATTAR_BUILD_DIR names the build folder).
"""

import json
import subprocess

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
pytest.importorskip("compressed_tensors")

import numpy as np
from formats_tools import PROGRAM, assert_same_state, convert, load, logits, needs_program, tiny

pytestmark = needs_program

MODELS = {
    "llama_untied": dict(),
    "llama_tied": dict(tie_word_embeddings=True),
    "llama_biases": dict(attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "llama_head_dim": dict(head_dim=32, num_key_value_heads=1),
    "llama3_rope": dict(rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0,
                                             low_freq_factor=1.0, high_freq_factor=4.0,
                                             original_max_position_embeddings=64)),
    "linear_rope": dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)),
    "mistral": dict(family="mistral"),
    "qwen2": dict(family="qwen2"),
    "qwen2_tied": dict(family="qwen2", tie_word_embeddings=True),
    "qwen3": dict(family="qwen3", head_dim=32),
    "qwen3_tied": dict(family="qwen3", head_dim=16, tie_word_embeddings=True),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model(request):
    return tiny(**request.param)


def test_a_folder_loads_in_transformers_with_the_same_tensors(model, tmp_path):
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", "huggingface")
    assert_same_state(load(tmp_path / "out"), model)


@pytest.mark.parametrize("dtype,option", [(torch.bfloat16, "bf16"), (torch.float16, "f16")])
def test_plain_values_are_rounded_as_torch_does(dtype, option, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "in")
    report = convert(tmp_path / "in", tmp_path / "out", "huggingface", f"type={option}")
    assert_same_state(load(tmp_path / "out", dtype=dtype), model.to(dtype))
    assert 0 < report["max_rounding"] < 0.02


def test_shards_written_by_transformers_are_read_and_ours_by_it(tmp_path):
    model = tiny(num_hidden_layers=4)
    model.save_pretrained(tmp_path / "in", max_shard_size="200KB")
    assert len(list((tmp_path / "in").glob("*.safetensors"))) > 2
    convert(tmp_path / "in", tmp_path / "out", "huggingface", "max_shard_bytes=300000")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert_same_state(load(tmp_path / "out"), model)


def test_a_gguf_becomes_a_folder_that_computes_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", "type=F32")
    convert(tmp_path / "m.gguf", tmp_path / "out", "huggingface")
    back = load(tmp_path / "out")
    if model.config.model_type == "mistral":  # GGUF has no mistral: the same model as a llama
        back_state, state = back.state_dict(), model.state_dict()
        assert all(torch.equal(back_state[name], state[name]) for name in state)
    else:
        assert_same_state(back, model)
    assert torch.equal(logits(back), logits(model))


# llama.cpp refuses to open a qwen3 that has them.
def test_a_gguf_of_a_family_that_has_no_biases_there_is_refused(tmp_path):
    model = tiny("qwen3", head_dim=16, attention_bias=True)
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", "huggingface")
    assert_same_state(load(tmp_path / "out"), model)
    done = subprocess.run([PROGRAM, tmp_path / "in", tmp_path / "m.gguf", "gguf"],
                          capture_output=True, text=True)
    assert done.returncode != 0 and "self_attn.q_proj has a bias" in done.stderr
    assert not (tmp_path / "m.gguf").exists()


GGUF_OF = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
           "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
           "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
           "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
           "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    parts = name.split(".")
    block = f"blk.{parts[2]}." if parts[1] == "layers" else ""
    return f"{block}{GGUF_OF[parts[-2]]}.{parts[-1]}"


def permuted(tensor, heads):
    """Rows as llama.cpp's converter lays them out for interleaved rotary embedding."""
    rest = tensor.shape[1:]
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *rest).swapaxes(1, 2).reshape(
        tensor.shape)


def in_gguf_order(name, tensor, config):
    interleaved = not config.model_type.startswith("qwen")
    if interleaved and "q_proj" in name:
        return permuted(tensor, config.num_attention_heads)
    if interleaved and "k_proj" in name:
        return permuted(tensor, config.num_key_value_heads)
    return tensor


def gguf_tensors(path):
    return {t.name: (t.tensor_type.name,
                     gguf.dequantize(t.data, t.tensor_type).reshape([int(n) for n in t.shape[::-1]]))
            for t in gguf.GGUFReader(path).tensors}


def test_the_gguf_package_reads_every_tensor_in_llama_cpps_order(model, tmp_path):
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", "type=F32")
    stored = gguf_tensors(tmp_path / "m.gguf")
    stored.pop("rope_freqs.weight", None)
    expected = {}
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not model.config.tie_word_embeddings:
            expected[gguf_name(name)] = in_gguf_order(name, tensor.numpy(), model.config)
    assert stored.keys() == expected.keys()
    for name, tensor in expected.items():
        assert np.array_equal(stored[name][1], tensor), name


def test_rope_freqs_are_the_factors_between_the_two_frequencies(tmp_path):
    model = tiny(**MODELS["llama3_rope"])
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", "type=F32")
    factors = gguf_tensors(tmp_path / "m.gguf")["rope_freqs.weight"][1]
    theta, dims = 5e5, 16
    plain = 1 / theta ** (np.arange(0, dims, 2) / dims)
    scaled = model.model.rotary_emb.inv_freq.numpy()
    assert np.allclose(factors, plain / scaled, rtol=1e-5)
    assert factors.min() == 1 and factors.max() == 8


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "F16", "BF16"])
def test_the_reference_quantizers_write_what_the_gguf_package_writes(kind, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "in")
    report = convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", f"type={kind}",
                     f"embedding_type={kind}")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    stored = {t.name: t for t in reader.tensors}
    largest = {t["tensor"]: t["max_difference"] for t in report["tensors"]}
    for name, tensor in model.state_dict().items():
        if tensor.dim() != 2:
            continue
        ours = stored[gguf_name(name)]
        expected = in_gguf_order(name, tensor.numpy(), model.config)
        assert ours.tensor_type.name == kind, name
        theirs = gguf.quantize(np.ascontiguousarray(expected), ours.tensor_type)
        assert np.array_equal(np.asarray(ours.data).view(np.uint8).reshape(-1),
                              theirs.view(np.uint8).reshape(-1)), name
        difference = np.abs(gguf.dequantize(theirs, ours.tensor_type).reshape(expected.shape)
                            - expected).max()
        assert largest[ours.name] == pytest.approx(difference, rel=1e-6), name


def test_kept_codes_dequantize_in_gguf_to_what_attar_computes_with(tmp_path):
    model = tiny().half()
    model.save_pretrained(tmp_path / "in")
    report = convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", "type=auto",
                     "quantize=4:32:symmetric@mlp.up", "quantize=8:64:symmetric@mlp.gate",
                     "quantize=4:32:minimum@mlp.down", "quantize=3:0:symmetric@self_attn.q",
                     "quantize=4:64:integer@self_attn.k", f"dense={tmp_path / 'dense'}")
    stored = gguf_tensors(tmp_path / "m.gguf")
    how = {t["tensor"]: t for t in report["tensors"]}
    dense = load(tmp_path / "dense", dtype=torch.float32)
    kinds = {"ffn_up": "Q4_0", "ffn_gate": "Q8_0", "ffn_down": "Q4_1", "attn_q": "Q4_0",
             "attn_k": "Q4_1", "attn_v": "F16"}
    for name, tensor in dense.state_dict().items():
        if name == "lm_head.weight" or tensor.dim() != 2 or "embed" in name:
            continue
        kind, values = stored[gguf_name(name)]
        expected = in_gguf_order(name, tensor.numpy(), dense.config)
        assert kind == kinds.get(gguf_name(name).split(".")[2], "F16")
        difference = np.abs(values - expected).max()
        assert difference == pytest.approx(how[gguf_name(name)]["max_difference"], abs=1e-9)
        if "k_proj" in name:
            assert 0 < difference < 0.002
        else:
            assert difference == 0, name


def test_transformers_reads_our_gguf_with_the_same_tensors(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "in")
    write_tokenizer(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", "type=F32")
    back = load(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    assert_same_state(back, model)
    assert torch.allclose(logits(back), logits(model), atol=1e-4)


def write_tokenizer(folder):
    """Byte-level BPE of 128 tokens, split as SmolLM does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=126, special_tokens=[
        AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.train_from_iterator(["the quick brown fox jumps over 1234 lazy dogs"] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>",
               "eos_token": "</s>", "chat_template": "{{ messages }}"},
              open(folder / "tokenizer_config.json", "w"))


def test_a_tokenizer_survives_the_way_through_gguf(tmp_path):
    from transformers import AutoTokenizer

    model = tiny()
    model.save_pretrained(tmp_path / "in")
    write_tokenizer(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "m.gguf", "gguf", "type=F16")
    convert(tmp_path / "m.gguf", tmp_path / "out", "huggingface")
    before, after = (AutoTokenizer.from_pretrained(tmp_path / f) for f in ("in", "out"))
    for text in ("the quick dog 2024", "  jumps</s> over\n", "fox 12<s>34"):
        assert before(text)["input_ids"] == after(text)["input_ids"], text
    assert after.chat_template == before.chat_template
    assert (after.bos_token_id, after.eos_token_id) == (before.bos_token_id, before.eos_token_id)


SCHEMES = {
    "w4_g32_asymmetric": ["quantize=4:32:integer"],
    "w4_g32_symmetric": ["quantize=4:32:symmetric"],
    "w4_rows_asymmetric": ["quantize=4:0:integer"],
    "w8_rows_symmetric": ["quantize=8:0:symmetric"],
    "w8_g32_asymmetric": ["quantize=8:32:integer"],
    "some_layers_dense": ["quantize=4:32:integer@mlp."],
    "mixed_symmetric": ["quantize=4:32:symmetric@mlp.", "quantize=8:0:symmetric@self_attn.v",
                        "quantize=4:16:symmetric@self_attn.o"],
}
MIXED = ["quantize=4:32:integer@mlp.", "quantize=8:0:symmetric@self_attn.v",
         "quantize=4:0:integer@self_attn.o"]


@pytest.mark.parametrize("options", SCHEMES.values(), ids=SCHEMES.keys())
@pytest.mark.parametrize("kind", ["llama_untied", "llama_tied", "qwen2", "qwen3"])
def test_compressed_tensors_dequantize_to_what_attar_computes_with(kind, options, tmp_path):
    model = tiny(**MODELS[kind]).half()
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "ct", "compressed-tensors", *options,
            f"dense={tmp_path / 'dense'}")
    ours = load(tmp_path / "dense", dtype=torch.float32)
    theirs = load(tmp_path / "ct", dtype=torch.float16)
    logits(theirs)  # the first forward decompresses
    for name, tensor in ours.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor.half()), name
    theirs = load(tmp_path / "ct", dtype=torch.float32)
    assert torch.allclose(logits(theirs), logits(ours), atol=1e-4)


def test_a_compressed_folder_is_read_back_as_it_was(tmp_path):
    model = tiny().half()
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "ct", "compressed-tensors", *MIXED,
            f"dense={tmp_path / 'dense'}")
    convert(tmp_path / "ct", tmp_path / "again", "huggingface", "type=f32")
    assert_same_state(load(tmp_path / "again"), load(tmp_path / "dense"))


def test_the_library_itself_decompresses_a_mixture_that_transformers_cannot_load(tmp_path):
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    from safetensors.torch import load_file

    model = tiny().half()
    model.save_pretrained(tmp_path / "in")
    report = convert(tmp_path / "in", tmp_path / "ct", "compressed-tensors", *MIXED,
                     f"dense={tmp_path / 'dense'}")
    assert any("cannot load this mixture" in note for note in report["notes"])
    config = json.load(open(tmp_path / "ct/config.json"))["quantization_config"]
    stored = load_file(tmp_path / "ct/model.safetensors")
    ours = load_file(tmp_path / "dense/model.safetensors")
    seen = 0
    for group in config["config_groups"].values():
        scheme = QuantizationScheme.model_validate(group)
        compressor = BaseCompressor.get_value_from_registry("pack-quantized")
        for module in group["targets"]:
            parts = {name[len(module) + 1:]: tensor for name, tensor in stored.items()
                     if name.startswith(module + ".")}
            weight = compressor.decompress(parts, scheme)["weight"]
            assert torch.equal(weight.half(), ours[module + ".weight"].half()), module
            seen += 1
    assert seen == 2 * 5
