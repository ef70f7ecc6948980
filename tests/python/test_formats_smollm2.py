"""The same on SmolLM2-135M-Instruct: models/smollm2.gguf and the folder models/smollm2."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

import numpy as np
from formats_tools import ROOT, assert_same_state, convert, load, needs_program
from test_formats import gguf_name, gguf_tensors, in_gguf_order

GGUF = ROOT / "models" / "smollm2.gguf"
FOLDER = ROOT / "models" / "smollm2"
pytestmark = [needs_program,
              pytest.mark.skipif(not GGUF.exists() or not FOLDER.exists(),
                                 reason="needs models/smollm2.gguf and models/smollm2")]

TEXTS = ["What is 12345 times 6?", "  naïve café\n\n\tx", "<|im_start|>user\nHi<|im_end|>\n",
         "It's 3.14159; they'll see\r\n中文 😀", "def f(x):\n    return x**2  # ½"]


@pytest.fixture(scope="module")
def from_gguf(tmp_path_factory):
    """The GGUF as a float32 folder."""
    folder = tmp_path_factory.mktemp("smollm2")
    convert(GGUF, folder / "hf", "huggingface", "type=f32")
    return folder / "hf"


def test_every_tensor_of_the_gguf_is_what_the_gguf_package_dequantizes(from_gguf):
    stored = gguf_tensors(GGUF)
    model = load(from_gguf, dtype=torch.float32)
    state = {name: tensor for name, tensor in model.state_dict().items()
             if name != "lm_head.weight"}
    assert len(stored) == len(state) == 272
    for name, tensor in state.items():
        expected = stored[gguf_name(name)][1]
        assert np.array_equal(in_gguf_order(name, tensor.numpy(), model.config), expected), name


def test_the_synthesized_tokenizer_gives_the_ids_of_the_folder(from_gguf):
    from transformers import AutoTokenizer

    ours, theirs = (AutoTokenizer.from_pretrained(f) for f in (from_gguf, FOLDER))
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == ids, text
        assert ours.decode(ids) == theirs.decode(ids)
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(
        chat, tokenize=False)
    assert ours.eos_token_id == theirs.eos_token_id and ours.bos_token_id == theirs.bos_token_id


def test_the_folder_goes_out_and_in_without_a_difference(tmp_path):
    report = convert(FOLDER, tmp_path / "out", "huggingface")
    assert report["max_rounding"] == 0
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (
        FOLDER / "tokenizer.json").read_bytes()
    assert_same_state(load(tmp_path / "out"), load(FOLDER))


def test_a_gguf_of_the_folder_has_the_metadata_of_the_published_one(tmp_path):
    convert(FOLDER, tmp_path / "m.gguf", "gguf", "type=F16", "name=x")
    ours, theirs = gguf.GGUFReader(tmp_path / "m.gguf"), gguf.GGUFReader(GGUF)
    values = {key: field.contents() for key, field in ours.fields.items()}
    for key, field in theirs.fields.items():
        told_otherwise = ("GGUF.", "general.", "tokenizer.ggml.unknown", "tokenizer.ggml.padding")
        if not key.startswith(told_otherwise):
            assert values[key] == field.contents(), key


def test_requantized_to_another_grid_it_keeps_its_codes(tmp_path):
    report = convert(GGUF, tmp_path / "m.gguf", "gguf", "type=auto", "quantize=4:64:symmetric")
    linear = [t for t in report["tensors"] if ".ffn_" in t["tensor"] or ".attn_" in t["tensor"]]
    linear = [t for t in linear if "norm" not in t["tensor"]]
    assert {(t["type"], t["how"], t["max_difference"]) for t in linear} == {
        ("Q4_0", "kept codes", 0.0)}
    assert report["bytes"] < GGUF.stat().st_size
