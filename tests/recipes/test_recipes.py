"""What stands in recipes/ and in the README is planned as it stands, and the README's Python runs, on
a model of SmolLM2's kind with few weights."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import transformers

import attar

SOURCE = pathlib.Path(__file__).resolve().parents[2]
RECIPES = SOURCE / "recipes"
PROGRAM = os.environ.get("ATTAR_PROGRAM", str(SOURCE / "build/bin/attar"))
README = (SOURCE / "README.md").read_text()
# What a recipe says of SmolLM2's own vocabulary, or of a text that another program writes first.
OTHER_WORDS = {"smollm2-60mb": {"passes.5.first": 300}, "smollm2-english": {"passes.0.first": 300},
               "smollm2-lora": {"passes.0.text": str(RECIPES / "calibration.txt"),
                                "eval.0.text": str(RECIPES / "calibration.txt")}}


def blocks_of(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the files that the README and the recipes name."""
    folder = tmp_path_factory.mktemp("checkout")
    model = folder / "models/smollm2"
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=64, intermediate_size=1536, num_hidden_layers=7, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=681, max_position_embeddings=2048, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=True)).save_pretrained(model)
    words = RECIPES / "tinyworld/teacher"
    shutil.copyfile(words / "tokenizer.json", model / "tokenizer.json")
    template = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    (model / "tokenizer_config.json").write_text(json.dumps(
        json.loads((words / "tokenizer_config.json").read_text()) | {"chat_template": template}))
    (folder / "models/SmolLM2-135M").symlink_to(model)
    (folder / "recipes").symlink_to(RECIPES)
    (folder / "data").mkdir()
    for name, source in [("c4.txt", "calibration.txt"), ("wiki.txt", "data/wikitext2_part.txt"),
                         ("arc_easy_test.jsonl", "data/arc_easy_test.jsonl")]:
        (folder / "data" / name).symlink_to(RECIPES / source)
    return folder


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_a_shipped_recipe_is_planned(name, checkout):
    planned = attar.plan(RECIPES / f"{name}.yaml", overrides={
        "model": str(checkout / "models/smollm2"), **OTHER_WORDS.get(name, {})})
    assert planned["disk_bytes"] > 0


@pytest.mark.parametrize("text", blocks_of("yaml"))
@pytest.mark.parametrize("override", [{}, {"passes.1.bits": 8}])
def test_a_recipe_of_the_readme_is_planned(text, override, checkout):
    recipe = checkout / "readme.yaml"
    recipe.write_text(text)
    assert attar.plan(recipe, overrides=override)["tensors"]


@pytest.mark.parametrize("text", blocks_of("python"))
def test_the_python_of_the_readme_runs(text, checkout):
    subprocess.run([PROGRAM, "export", checkout / "models/smollm2", "--format", "gguf", "--type", "F16",
                    "--out", checkout / "models/smollm2.gguf"], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", text], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (checkout / "out/manifest.json").is_file()
