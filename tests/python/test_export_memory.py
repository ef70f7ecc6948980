"""Memory of writing quantized files: a bound for any model size."""

import json
import struct
import subprocess
import sys

import pytest

from attar_program import PROGRAM

HIDDEN, FFN, VOCABULARY = 4096, 11008, 32000  # Llama 2 7B: its largest tensor has 262 MB
LARGEST = 256e6

# The peak of a process in kilobytes, mapped files included. From a small process: one that was
# started by a large one counts from what its parent had.
WATCH = """
import os, sys
child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(child, 0)
print("PEAK", used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def make_wide(folder, layers=1):
    """A model of holes: its zeros take no space on the disk and are read like any other bytes."""
    folder.mkdir()
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(layers):
        block = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}{name}.weight"] = (HIDDEN,)
        for name in "qkvo":
            shapes[f"{block}self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        for name, shape in (("gate", (FFN, HIDDEN)), ("up", (FFN, HIDDEN)), ("down", (HIDDEN, FFN))):
            shapes[f"{block}mlp.{name}_proj.weight"] = shape
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
         "intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": 32,
         "num_key_value_heads": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 4096,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
         "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}))
    return folder


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M", "F16"])
def test_export_needs_no_more_memory_than_this_for_wide_layers(kind, tmp_path):
    model = make_wide(tmp_path / "wide")
    done = subprocess.run([sys.executable, "-c", WATCH, str(PROGRAM), "export", str(model),
                           "--format", "gguf", "--type", kind, "--threads", "2", "--out",
                           str(tmp_path / "m.gguf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = 1024 * int(done.stdout.split("PEAK")[1])
    print(f"{kind}: {peak / 1e6:.0f} MB for a source of "
          f"{(model / 'model.safetensors').stat().st_size / 1e6:.0f} MB")
    assert peak < LARGEST
