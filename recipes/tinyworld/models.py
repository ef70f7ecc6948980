"""The shapes of the models that learn the small world."""

# `quarter` has a quarter of the teacher's parameters.
SHAPES = {
    "teacher": {"hidden": 128, "layers": 6, "heads": 4, "kv_heads": 2, "ffn": 256},
    "quarter": {"hidden": 64, "layers": 6, "heads": 4, "kv_heads": 2, "ffn": 108},
}
DEVIATION = 0.06  # of the weights at the start


def parameters(shape, vocabulary):
    """How many; the head is the embedding."""
    hidden = shape["hidden"]
    kv = hidden // shape["heads"] * shape["kv_heads"]
    block = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * shape["ffn"] + 2 * hidden
    return vocabulary * hidden + shape["layers"] * block + hidden


def config(shape, vocabulary):
    """config.json of a Llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["ffn"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
