"""Effects of distillation: what a pruned student loses, every loss wins back a part of."""

import json

import pytest
from safetensors.torch import load_file

from attar_program import make_stories, make_text, recipe_for, succeed, write_recipe
from effects_tools import real, run

# The relations of one block say nothing of the predictions: alone they ruin them, so
# they come beside another loss, as they do in use.
LOSSES = ["forward_kl", "reverse_kl", "jensen_shannon", "skew_forward", "skew_reverse",
          "total_variation", "taid", "cross_entropy", "hidden",
          {"forward_kl": {}, "relation": {"weight": 0.1}}]
CUT = {"tinyworld": [{"prune.depth": {"remove": 2}}, {"prune.width": {"ffn": 0.5, "align": 8}}],
       "smollm2": [{"prune.width": {"ffn": 0.75, "align": 64}}],
       "smollm2 by size": [{"prune.width": {"ffn": 0.75, "align": 64, "choose": "magnitude", "refit": False}}]}
TRAINING = {"tinyworld": {"steps": 60, "batch": 4, "length": 192, "learning_rate": 3e-4},
            "smollm2": {"steps": 40, "batch": 2, "length": 256, "learning_rate": 1e-4},
            "smollm2 by size": {"steps": 40, "batch": 2, "length": 256, "learning_rate": 3e-4}}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """KL of the student before it learns, of a cut measured once."""
    found = {}

    def measure(cut):
        if cut not in found:
            found[cut] = run(tmp_path_factory.mktemp("cut"), "pruned", cut.split()[0], CUT[cut])[0]
        return found[cut]

    return measure


def distilled(cut, tmp_path, **options):
    return run(tmp_path, "distilled", cut.split()[0],
               lambda text: [*CUT[cut], {"distill": {"text": text, **TRAINING[cut], **options}}])[0]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: "".join(list(loss)[-1:]) if isinstance(loss, dict) else loss)
def test_every_loss_lowers_the_divergence_of_a_pruned_student(loss, pruned, tmp_path):
    assert distilled("tinyworld", tmp_path, loss=loss) < 0.9 * pruned("tinyworld")


# 12 steps: 9.60 to 6.76, 5.07 and 7.45 were measured.
@real
@pytest.mark.parametrize("loss", ["reverse_kl", "taid", "hidden"])
def test_losses_lower_that_of_smollm2_too(loss, pruned, tmp_path):
    cut = "smollm2 by size"
    assert distilled(cut, tmp_path, loss=loss, steps=12) < 0.9 * pruned(cut)


# Forty steps on SmolLM2 see 20,000 tokens: 9.60 to 3.00 was measured where neurons went by size and
# nothing was refitted. Behind structured OBS, which has won in closed form what is easily won, a half
# was meant and 0.661 of 0.756 was measured.
@pytest.mark.parametrize("cut, share", [
    ("tinyworld", 0.5), pytest.param("smollm2 by size", 0.5, marks=real),
    pytest.param("smollm2", 0.92, marks=real)])
def test_the_default_loss_halves_it(cut, share, pruned, tmp_path):
    assert distilled(cut, tmp_path) < share * pruned(cut)


def test_windows_that_the_student_writes_teach_it_too(pruned, tmp_path):
    (tmp_path / "text").mkdir()
    text = distilled("tinyworld", tmp_path / "text", loss="reverse_kl")
    own = distilled("tinyworld", tmp_path, on_policy=0.5, loss="reverse_kl")
    print(f"KL {pruned('tinyworld'):.4f}, by the text {text:.4f}, half of the windows its own {own:.4f}")
    assert own < min(text, 0.9 * pruned("tinyworld"))


def test_norms_learn_behind_a_pass_that_rounds(tmp_path):
    rounded = [{"quantize.rtn": {"bits": 2, "group_size": 32}}]
    before, _ = run(tmp_path, "rounded", "tinyworld", rounded)
    after, _ = run(tmp_path, "learnt", "tinyworld",
                   lambda text: [*rounded, {"distill": {"text": text, **TRAINING["tinyworld"],
                                                        "learn": ["norms"]}}])
    assert after < 0.9 * before


def test_weights_in_codes_learn_as_plain_values_as_plan_says(tmp_path):
    make_stories(tmp_path / "model")
    text = make_text(tmp_path / "text.txt")
    rounding = recipe_for(tmp_path, eval=None, export=[{"format": "gguf", "type": "auto", "path": "m.gguf"},
                                                       {"format": "huggingface", "path": "hf"}],
                          passes=[{"quantize.rtn": {"type": "Q8_0", "skip": ["down"]}}])
    succeed("run", write_recipe(tmp_path / "rounding.yaml", rounding), "--out", tmp_path / "rounded")
    recipe = write_recipe(tmp_path / "r.yaml", recipe_for(
        tmp_path, model=str(tmp_path / "rounded/m.gguf"), eval=None, passes=[{"train.text": {
            "text": str(text), "steps": 2, "batch": 2, "length": 64, "learning_rate": 1e-3}}]))
    plan = json.loads(succeed("plan", recipe, "--output", "json").stdout)
    assert {tensor["result_type"] for tensor in plan["tensors"]} == {"F32"}
    succeed("run", recipe, "--out", tmp_path / "out")
    coded = sum(tensor["source_type"] == "Q8_0" for tensor in plan["tensors"])
    lines = [json.loads(line) for line in (tmp_path / "out/run.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines if line.get("kind") == "codes_undone"] == [
        f"{coded} of the weights were in codes and have learnt as plain values; "
        "round them again behind this pass"]
    before, after = (load_file(tmp_path / out / "hf/model.safetensors") for out in ("rounded", "out"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (after[name].float() - before[name].float()).abs().max() > 1e-3  # two steps of 1e-3
