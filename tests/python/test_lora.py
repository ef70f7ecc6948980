"""train.lora on a model that knows something: what it learns, what stays, and that PEFT computes what
attar computes with the adapter that it wrote."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file

import attar
from attar_program import attar as program, make_stories, succeed, write_recipe
from exports_tools import load, logits_of, relative_difference

STORIES = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 400, 428, 5, 67, 300, 9, 44, 8]
# A domain that stories260K does not know.
DOMAIN = ("The invoice number is 4711. The amount due is 120 euros. The date of payment is Monday.\n"
          "The invoice number is 4712. The amount due is 80 euros. The date of payment is Friday.\n")


def recipe_for(folder, passes, exports=()):
    if not (folder / "model").exists():
        make_stories(folder / "model")
        (folder / "domain.txt").write_text(DOMAIN * 12)
    recipe = {"version": 1, "seed": 5, "model": str(folder / "model"), "passes": passes,
              "eval": [{"divergence": {"text": str(folder / "domain.txt"), "length": 64,
                                       "windows": 8}}]}
    if exports:
        recipe["export"] = list(exports)
    return write_recipe(folder / f"{len(list(folder.glob('*.yaml')))}.yaml", recipe)


def lora(folder, **options):
    return {"train.lora": {"text": str(folder / "domain.txt"), "steps": 60, "batch": 4, "length": 64,
                           "rank": 4, "alpha": 8, "learning_rate": 0.003, **options}}


def perplexities(out):
    text = json.loads((out / "results.json").read_text())["attar"]["texts"][0]
    return text["perplexity_before"]["value"], text["perplexity_after"]["value"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run with kept terms: its folder."""
    folder = tmp_path_factory.mktemp("lora")
    succeed("run", recipe_for(folder, [lora(folder)],
                              [{"format": "peft", "path": "adapter"},
                               {"format": "huggingface", "type": "f32", "path": "hf"}]),
            "--out", folder / "out")
    return folder


def test_terms_learn_the_domain(tuned):
    before, after = perplexities(tuned / "out")
    assert after < 0.5 * before


def test_without_a_learning_rate_nothing_changes(tmp_path):
    succeed("run", recipe_for(tmp_path, [lora(tmp_path, learning_rate=0, steps=2)]),
            "--out", tmp_path / "out")
    before, after = perplexities(tmp_path / "out")
    assert after == pytest.approx(before, rel=1e-9)


def test_a_larger_alpha_learns_faster(tmp_path):
    found = {}
    for alpha in (1, 16):
        succeed("run", recipe_for(tmp_path, [lora(tmp_path, alpha=alpha, steps=15)]),
                "--out", tmp_path / f"out{alpha}")
        found[alpha] = perplexities(tmp_path / f"out{alpha}")[1]
    assert found[16] < 0.8 * found[1]


def test_peft_computes_the_same_logits(tuned):
    peft = pytest.importorskip("peft")
    adapter = tuned / "out" / "adapter"
    model = peft.PeftModel.from_pretrained(load(tuned / "model"), adapter).eval()
    ours = attar.open(adapter).logits(STORIES)
    assert relative_difference(ours, logits_of(model, STORIES)) < 1e-4
    assert relative_difference(ours, logits_of(load(tuned / "model"), STORIES)) > 1e-2
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["r"] == 4 and len(config["target_modules"]) == 35


def test_ranks_and_alphas_of_single_modules_are_those_of_peft(tuned, tmp_path):
    peft = pytest.importorskip("peft")
    folder = shutil.copytree(tuned / "out" / "adapter", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in tensors:  # half of the rank where the pattern says so
        if "down_proj" in name:
            tensors[name] = (tensors[name][:2] if "lora_A" in name else tensors[name][:, :2]).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config.update(rank_pattern={"down_proj": 2}, alpha_pattern={"mlp.down_proj": 24, "1.self_attn.q_proj": 40})
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model = peft.PeftModel.from_pretrained(load(tuned / "model"), folder).eval()
    assert relative_difference(attar.open(folder).logits(STORIES), logits_of(model, STORIES)) < 1e-4


def test_terms_in_sixteen_bits_are_exported_and_verified(tmp_path):
    learnt = lora(tmp_path, rank=32, learning_rate=0.05, steps=30)
    for kind in ("f16", "bf16"):
        succeed("run", recipe_for(tmp_path, [learnt], [{"format": "peft", "path": "a", "type": kind}]),
                "--out", tmp_path / kind)


def test_an_adapter_on_an_adapter_is_refused(tuned, tmp_path):
    folder = shutil.copytree(tuned / "out" / "adapter", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(folder)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    done = program("inspect", folder)
    assert done.returncode == 3 and "is an adapter itself" in done.stderr


def test_merging_over_an_adapter_on_codes_is_refused_beforehand(tuned, tmp_path):
    rounding = {"quantize.rtn": {"bits": 4, "group_size": 4, "symmetric": True}}
    succeed("run", recipe_for(tmp_path, [rounding], [{"format": "compressed-tensors", "path": "hf"}]),
            "--out", tmp_path / "out")
    folder = shutil.copytree(tuned / "out" / "adapter", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "out/hf")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    done = program("plan", recipe_for(tmp_path, [lora(tmp_path, merge=True)]), f"model={folder}")
    assert done.returncode == 2 and "would undo the codes" in done.stderr, done.stderr


def test_other_layers_keep_their_codes_and_terms(tmp_path):
    """A term of another pass outside of `layers` neither learns nor is merged."""
    passes = [{"quantize.rtn": {"bits": 4, "group_size": 4, "layers": ["mlp.*"]}},
              {"lowrank.correct": {"rank": 2, "layers": ["mlp.*"]}}]
    recipe = recipe_for(tmp_path, passes + [lora(tmp_path, layers="self_attn.*", merge=True, steps=4)])
    content = json.loads(recipe.read_text())
    content["calibration"] = {"text": str(tmp_path / "domain.txt"), "sequences": 8, "length": 32}
    recipe.write_text(json.dumps(content))
    succeed("run", recipe, "--out", tmp_path / "out")
    recipe.write_text(json.dumps({**content, "passes": passes}))
    succeed("run", recipe, "--out", tmp_path / "without")
    bits = [json.loads((tmp_path / name / "results.json").read_text())["attar"]["bits_per_weight"]
            for name in ("out", "without")]
    assert bits[0] == bits[1]  # plain values stay plain, codes stay codes


def test_merging_into_a_file_in_codes_is_refused_beforehand(tmp_path):
    rounding = {"quantize.rtn": {"bits": 4, "group_size": 4, "symmetric": True}}
    succeed("run", recipe_for(tmp_path, [rounding], [{"format": "compressed-tensors", "path": "hf"}]),
            "--out", tmp_path / "out")
    done = program("plan", recipe_for(tmp_path, [lora(tmp_path, merge=True)]), f"model={tmp_path / 'out/hf'}")
    assert done.returncode == 2 and "would undo the codes" in done.stderr, done.stderr


def test_merged_exports_compute_what_terms_beside_compute(tuned):
    kept = attar.open(tuned / "out" / "adapter").logits(STORIES)
    assert relative_difference(attar.open(tuned / "out" / "hf").logits(STORIES), kept) < 1e-5
    out = tuned / "merged"
    succeed("run", recipe_for(tuned, [lora(tuned, merge=True)],
                              [{"format": "huggingface", "type": "f32", "path": "hf"}]),
            "--out", out)
    assert relative_difference(attar.open(out / "hf").logits(STORIES), kept) < 1e-5


def test_terms_beside_codes_are_trained_and_merging_them_is_refused(tmp_path):
    rounding = {"quantize.rtn": {"bits": 4, "group_size": 4}}
    succeed("run", recipe_for(tmp_path, [rounding, lora(tmp_path, layers="mlp.*")]),
            "--out", tmp_path / "out")
    before, after = perplexities(tmp_path / "out")
    assert after < 0.6 * before
    assert "codes_undone" not in (tmp_path / "out/run.jsonl").read_text()
    done = program("run", recipe_for(tmp_path, [rounding, lora(tmp_path, merge=True)]),
                   "--out", tmp_path / "merged")
    assert done.returncode == 2 and "rounded already" in done.stderr
    assert not (tmp_path / "merged").exists()


def test_the_plan_refuses_an_adapter_of_a_changed_base(tmp_path):
    adapter = [{"format": "peft", "path": "adapter"}]
    rounding = {"quantize.rtn": {"bits": 4, "group_size": 4}}
    for passes, said in (([rounding, lora(tmp_path)], "unchanged model"),
                         ([lora(tmp_path), rounding], "unchanged model"),
                         ([lora(tmp_path, merge=True)], "unchanged model"),
                         ([], "no pass leaves")):
        done = program("plan", recipe_for(tmp_path, passes, adapter))
        assert done.returncode != 0 and said in done.stderr, done.stderr


def broken(tuned, folder):
    shutil.copytree(tuned / "out" / "adapter", folder)
    return folder


def test_adapters_that_do_not_fit_are_refused_by_name(tuned, tmp_path):
    def change(name, **values):
        folder = broken(tuned, tmp_path / name)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **values}))
        return folder

    def replace(name, edit):
        folder = broken(tuned, tmp_path / name)
        tensors = load_file(folder / "adapter_model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    for folder, said in (
            (change("moved", base_model_name_or_path="elsewhere"), "not there"),
            (change("other", peft_type="IA3"), "peft_type"),
            (change("dora", use_dora=True), "use_dora"),
            (change("rank", r=0), "r must be positive"),
            (change("expression", alpha_pattern={"layers.[01].*": 4}), "regular expression"),
            (change("two", alpha_pattern={"down_proj": 4, "mlp.down_proj": 8}), "two keys"),
            (replace("shape", lambda t: t.update({first: t[first][:, :-1].contiguous()})), first),
            (replace("stranger", lambda t: t.update({"base_model.model.x": torch.ones(2)})),
             "belongs to no linear layer")):
        done = program("inspect", folder)
        assert done.returncode != 0 and said in done.stderr, (folder, done.stderr)
