#!/usr/bin/env python3
"""Writes a GGUF file of TinyLlama-1.1B's shape (or another) filled with random Q4_0 blocks, the
embedding and the head in Q8_0.

    python3 tests/bench/random_gguf.py FILE.gguf [--layers 22]

It answers nonsense and has no tokenizer; what it is for is the memory and the time that a shape
costs: random_llama.py without the rounding. The same arguments give the same bytes.
"""

import argparse

import gguf
import numpy as np


def blocks(random, rows, columns, kind):
    """Random blocks of 32 whose values have a deviation of columns ** -0.5."""
    count = rows * columns // 32
    size, step = ((18, 0.22) if kind == gguf.GGMLQuantizationType.Q4_0 else (34, 0.0136))
    data = random.integers(0, 256, (count, size), np.uint8)
    scale = np.float16(step * columns ** -0.5) * (1 + random.random(count, np.float32) / 4)
    data[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(count, 2)
    return data.reshape(rows, columns // 32 * size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--ffn", type=int, default=5632)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=32000)
    a = parser.parse_args()
    random = np.random.default_rng(7)
    dim = a.hidden // a.heads
    writer = gguf.GGUFWriter(a.file, "llama")
    writer.add_block_count(a.layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(a.hidden)
    writer.add_feed_forward_length(a.ffn)
    writer.add_head_count(a.heads)
    writer.add_head_count_kv(a.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(a.vocabulary)
    writer.add_file_type(2)
    writer.add_string("tokenizer.ggml.model", "none")
    q4, q8 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0

    def add(name, rows, columns, kind):
        writer.add_tensor(name, blocks(random, rows, columns, kind), raw_dtype=kind)

    def add_norm(name):
        writer.add_tensor(name, np.ones(a.hidden, np.float32))

    add("token_embd.weight", a.vocabulary, a.hidden, q8)
    for i in range(a.layers):
        layer = f"blk.{i}."
        add_norm(layer + "attn_norm.weight")
        add_norm(layer + "ffn_norm.weight")
        for name, rows, columns in [("attn_q", a.hidden, a.hidden), ("attn_k", a.kv_heads * dim, a.hidden),
                                    ("attn_v", a.kv_heads * dim, a.hidden),
                                    ("attn_output", a.hidden, a.hidden), ("ffn_gate", a.ffn, a.hidden),
                                    ("ffn_up", a.ffn, a.hidden), ("ffn_down", a.hidden, a.ffn)]:
            add(f"{layer}{name}.weight", rows, columns, q4)
    add_norm("output_norm.weight")
    add("output.weight", a.vocabulary, a.hidden, q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
