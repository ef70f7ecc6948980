"""What the tests of formats share: the program that converts, tiny models, comparisons."""

import json
import os
import pathlib
import subprocess

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("ATTAR_BUILD_DIR", "build")
PROGRAM = BUILD / "bin" / "convert_model"

needs_program = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"needs {PROGRAM}: build convert_model")


def convert(source, target, form, *options):
    """The report of convert_model; a failed assertion with its message when it refuses."""
    command = [str(PROGRAM), str(source), str(target), form, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tiny(family="llama", seed=0, **changes):
    """A randomly initialised model of transformers, float32, hidden 64, 2 layers, GQA."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, vocab_size=128,
                    max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
                    tie_word_embeddings=False)
    if family == "mistral":
        settings["sliding_window"] = None
    settings.update(changes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model.eval()


def load(folder, **settings):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def assert_same_state(got, expected):
    got, expected = got.state_dict(), expected.state_dict()
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name].float(), tensor.float()), name


def logits(model, length=24):
    ids = torch.arange(length).remainder(100).unsqueeze(0) + 3
    with torch.no_grad():
        return model(ids).logits.float()
