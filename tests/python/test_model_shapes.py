"""Models out of the ordinary: norms of queries and keys, blocks of different widths, blocks that lack
a part. Every pass takes them, and what comes out is what transformers and llama.cpp read.
"""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import attar
from attar_program import attar as program
from attar_program import succeed
from exports_tools import (IDS, SHARED, llama_cpp_divergences, load, logits_of, make_tiny, needed,
                           relative_difference)

SAME = 1e-7  # KL to llama.cpp of a file of float32


@pytest.fixture
def text():
    return str(needed(SHARED / "data/eval/tinystories_valid_part.txt"))


def recipe(model, text, passes, *more, kind="F32"):
    return {"version": 1, "model": str(model), "seed": 3, "passes": passes,
            "calibration": {"text": text, "sequences": 8, "length": 32},
            "export": [{"format": "gguf", "type": kind, "path": "m.gguf"}, *more]}


def ask(command, folder, content, *arguments, call=succeed):
    (folder / "r.yaml").write_text(json.dumps(content))
    return call(command, folder / "r.yaml", *arguments)


def run(folder, content):
    """The GGUF that it leaves, which the run has read back and compared."""
    ask("run", folder, content, "--out", folder / "out")
    return folder / "out/m.gguf"


def refused(folder, content, reason):
    found = ask("plan", folder, content, call=program)
    assert found.returncode == 4 and reason in found.stderr


def same_in_llama_cpp(path, what):
    found = llama_cpp_divergences(path, [IDS, IDS[:7]])
    print(f"{what}: KL to llama.cpp {max(found):.2e}")
    assert max(found) < SAME, found


def same_token_by_token(path):
    new = attar.open(path).generate(IDS, max_new_tokens=8).ids
    more = attar.open(path).logits(IDS + new)
    assert new == more[len(IDS) - 1:-1].argmax(-1).tolist()


def as_floats(path, folder):
    succeed("export", path, "--format", "gguf", "--type", "F32", "--embedding", "F32", "--out",
            folder / "f32.gguf")
    return folder / "f32.gguf"


def weigh_blocks(folder, shares):
    """Neurons and KV heads of block i matter little beyond `shares[i]` of them."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for block, share in enumerate(shares):
        down = weights[f"model.layers.{block}.mlp.down_proj.weight"]
        down[:, int(share * down.shape[1]):] *= 0.01
        output = weights[f"model.layers.{block}.self_attn.o_proj.weight"]
        output[:, int(4 * share) * output.shape[1] // 4:] *= 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def learn(text, **more):
    return {"text": text, "steps": 4, "batch": 2, "length": 32, "learning_rate": 1e-3, **more}


@pytest.mark.parametrize("family, uniform", [("qwen3", True), ("llama", False)])
def test_many_passes_one_after_the_other(family, uniform, text, tmp_path):
    model = make_tiny(tmp_path / "tiny", family=family, layers=4)
    weigh_blocks(model, [0.25, 0.4, 0.8, 1])
    passes = [{"prune.width": {"ffn": 0.5, "align": 32, "uniform": uniform}},
              {"prune.depth": {"remove": 1, "unit": "block" if uniform else "attention"}},
              {"distill": learn(text, loss=["forward_kl", {"relation": {}}], teacher=str(model))},
              {"lowrank.svd": {"keep": 0.9, "align": 1}},
              {"quantize.rotate": {}}, {"quantize.awq": {}},
              {"quantize.gptq": {"bits": 4, "group_size": 32, "symmetric": True}},
              {"quantize.autoround": {"steps": 4}}, {"quantize.tune": {"epochs": 1}}]
    more = [{"format": "compressed-tensors", "path": "hf"}] if uniform else []
    path = run(tmp_path, recipe(model, text, passes, *more, kind="auto"))
    ours = attar.open(path).logits(IDS)
    assert relative_difference(ours, attar.open(model).logits(IDS)) > 1e-2
    assert (0 in attar.open(path).config.get("heads_by_block", [])) != uniform
    if uniform:
        folder = path.parent / "hf"
        assert relative_difference(attar.open(folder).logits(IDS), logits_of(load(folder), IDS)) < 1e-4
    # llama.cpp rounds activations to 8 bits beside codes, which moves a random model far.
    assert max(llama_cpp_divergences(path, [IDS, IDS[:7]])) < 0.3
    same_in_llama_cpp(as_floats(path, tmp_path), family)


# What a width shared out over the blocks leaves: other numbers of heads and neurons in each.
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_blocks_of_different_widths_run_in_llama_cpp(family, text, tmp_path):
    model = make_tiny(tmp_path / "tiny", family=family, layers=4, kv_heads=4)
    weigh_blocks(model, [0.25, 0.4, 0.8, 1])
    content = recipe(model, text, [{"prune.width": {"ffn": 0.5, "kv_heads": 0.5, "align": 16,
                                                    "uniform": False}}])
    said = ask("plan", tmp_path, content).stdout
    assert "architecture deci, which llama.cpp and attar read" in said
    path = run(tmp_path, content)
    config = attar.open(path).config
    for key, total in [("ffn_by_block", 4 * 64), ("heads_by_block", 8), ("kv_heads_by_block", 8)]:
        assert sum(config[key]) == total and len(set(config[key])) > 1, config
    same_in_llama_cpp(path, f"{family}, uneven")
    same_token_by_token(path)
    again = tmp_path / "again.gguf"
    succeed("export", path, "--format", "gguf", "--type", "F32", "--out", again)
    assert again.read_bytes() == path.read_bytes()
    for form in ["huggingface", "compressed-tensors"]:
        refused(tmp_path, content | {"export": [{"format": form, "path": "hf"}]}, "export as gguf")
    # A group that divides the mean width and not all that may come of it.
    group = max(config["ffn_by_block"])
    refused(tmp_path, recipe(path, text, [{"quantize.rtn": {"bits": 4, "group_size": group,
                                                            "layers": ["down"]}}]),
            "group_size must divide")


# Attention or MLP alone is removed; 32 neurons that write nothing stand for an MLP.
@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_blocks_that_lack_a_part_run_in_llama_cpp(unit, text, tmp_path):
    model = make_tiny(tmp_path / "tiny", family="qwen2", layers=4)
    path = run(tmp_path, recipe(model, text, [{"prune.depth": {"remove": 2, "unit": unit}}]))
    config = attar.open(path).config
    assert (config["heads_by_block"].count(0) == 2 if unit == "attention"
            else config["ffn_by_block"].count(32) == 2)
    same_in_llama_cpp(path, f"without {unit}")
    same_token_by_token(path)
    tried = program("export", path, "--format", "huggingface", "--out", tmp_path / "hf")
    assert tried.returncode == 4 and "prune.depth unit: block" in tried.stderr


@pytest.fixture(scope="module")
def lacking(tmp_path_factory):
    """Four blocks of different widths, two of them without attention."""
    folder = tmp_path_factory.mktemp("lacking")
    text = str(needed(SHARED / "data/eval/tinystories_valid_part.txt"))
    model = make_tiny(folder / "tiny", hidden=256, layers=4)
    weigh_blocks(model, [0.25, 0.4, 0.8, 1])
    path = run(folder, recipe(model, text, [
        {"prune.depth": {"remove": 2, "unit": "attention"}},
        {"prune.width": {"ffn": 0.5, "align": 128, "uniform": False}}]))
    assert len(set(attar.open(path).config["ffn_by_block"])) > 1
    return path


RTN = {"quantize.rtn": {"bits": 4, "group_size": 32, "symmetric": True}}
ALONE = {
    "heads": [{"prune.width": {"kv_heads": 0.5, "uniform": False}}],
    "channels": [{"prune.width": {"hidden": 0.5, "align": 64}}],
    "block": [{"prune.depth": {"remove": 1}}],
    "all but one attention": [{"prune.depth": {"remove": 1, "unit": "attention"}},
                              {"prune.depth": {"remove": 2}}],
    "mlp": [{"prune.depth": {"remove": 1, "unit": "mlp", "align": 64}}, {"quantize.awq": {}},
            {"quantize.gptq": {"type": "Q4_K"}}],
    "mixture": [{"quantize.rtn": {"type": "Q4_K_M"}}],
    "magnitude": [{"prune.sparse": {"method": "magnitude"}}],
    "wanda": [{"prune.sparse": {"method": "wanda"}}],
    "sparsegpt": [{"prune.sparse": {"method": "sparsegpt"}}],
    "vocab": [{"prune.vocab": {"first": 450}}],
    "share": [{"lowrank.share": {"keep": 0.9, "align": 1}}],
    "plain svd": [{"lowrank.svd": {"rank": 16, "method": "plain"}}],
    "correct": [RTN, {"lowrank.correct": {"rank": 4}}],
    "embedding": [RTN, {"quantize.embedding": {}}],
    "fit": [{"quantize.fit": {"bits": 5, "types": ["IQ4_NL", "Q8_0"]}}],
    "w8a8": [{"quantize.smooth": {}}, {"quantize.rtn": {"bits": 8, "activations": 8}}],
    "text": [{"train.text": {}}],
    "lora": [{"train.lora": {"merge": True}}],
    "hidden": [{"distill": {"loss": ["forward_kl", {"hidden": {}}, {"relation": {}}]}}],
}


@pytest.mark.parametrize("passes", ALONE.values(), ids=ALONE.keys())
def test_each_pass_takes_a_model_of_unlike_blocks(passes, lacking, text, tmp_path):
    passes = [{name: learn(text, **options) if name.startswith(("train", "distill")) else options}
              for step in passes for name, options in step.items()]
    activations = any("activations" in options for step in passes for options in step.values())
    content = recipe(lacking, text, passes, kind="auto")
    if activations:  # no GGUF says that they are rounded
        refused(tmp_path, content, "rounds what it reads")
        ask("run", tmp_path, content | {"export": []}, "--out", tmp_path / "out")
        return
    path = run(tmp_path, content)
    assert 0 in attar.open(path).config["heads_by_block"]
    ours, before = attar.open(path).logits(IDS), attar.open(lacking).logits(IDS)
    assert ours.shape != before.shape or relative_difference(ours, before) > 1e-3
    same_in_llama_cpp(as_floats(path, tmp_path), next(iter(passes[-1])))


def test_mixtures_and_coded_caches_of_unlike_blocks(lacking, tmp_path):
    for kind in ["Q4_K_M", "Q6_K", "IQ4_XS"]:
        (path := tmp_path / kind).mkdir()
        succeed("export", lacking, "--format", "gguf", "--type", kind, "--out", path / "m.gguf")
        same_in_llama_cpp(as_floats(path / "m.gguf", path), kind)
    said = {bits: succeed("generate", lacking, "--prompt", "Once upon a time", "--tokens", 8,
                          "--kv-bits", bits).stdout for bits in [32, 8, 4]}
    assert said[8] == said[32]
    assert said[4]
