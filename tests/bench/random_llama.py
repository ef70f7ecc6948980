#!/usr/bin/env python3
"""Writes a folder of TinyLlama-1.1B's shape (or another) filled with random float16 weights.

    python3 tests/bench/random_llama.py FOLDER --tokenizer llama2_tokenizer.model [--layers 22]

It answers nonsense; what it is for is the memory and the time that a shape costs. The same
arguments give the same bytes. Holds one tensor in memory.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np


def shapes_of(config):
    """Tensor names in the order of the file, with their shapes."""
    hidden, ffn, vocabulary = (config[key] for key in
                               ("hidden_size", "intermediate_size", "vocab_size"))
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        for name, out, width in [("self_attn.q_proj", hidden, hidden),
                                 ("self_attn.k_proj", kv, hidden), ("self_attn.v_proj", kv, hidden),
                                 ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", ffn, hidden),
                                 ("mlp.up_proj", ffn, hidden), ("mlp.down_proj", hidden, ffn)]:
            yield f"{layer}{name}.weight", (out, width)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def values_of(shape, random):
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    deviation = np.float32(shape[1] ** -0.5)  # a product keeps the size of its input
    return (random.standard_normal(shape, np.float32) * deviation).astype(np.float16)


def write(folder, config):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes_of(config):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(7)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in shapes_of(config):
            file.write(values_of(shape, random).tobytes())
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return offset


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--ffn", type=int, default=5632)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=32000)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    bytes_written = write(arguments.folder, {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": arguments.hidden, "intermediate_size": arguments.ffn,
        "num_hidden_layers": arguments.layers, "num_attention_heads": arguments.heads,
        "num_key_value_heads": arguments.kv_heads, "vocab_size": arguments.vocabulary,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "float16"})
    suffix = arguments.tokenizer.suffix  # .model or .json
    shutil.copyfile(arguments.tokenizer, arguments.folder / f"tokenizer{suffix}")
    print(f"{arguments.folder}: {bytes_written / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
