"""quantize.fit in a recipe: what it chooses goes into the files that can hold every choice."""

import json

from attar_program import succeed, write_recipe
from effects_tools import TINYWORLD, run

FIT = {"bits": 5.5, "widths": [4, 8], "group_sizes": [32], "embedding": False, "method": "rtn"}


def test_what_it_chose_goes_into_compressed_tensors(tmp_path):
    _, out = run(tmp_path, "fit", "tinyworld", [{"quantize.fit": FIT}],
                 [{"format": "compressed-tensors", "path": "hf"}])
    groups = json.loads((out / "hf/config.json").read_text())["quantization_config"]["config_groups"]
    assert {group["weights"]["num_bits"] for group in groups.values()} == {4, 8}


def test_blocks_that_go_behind_it_are_planned(tmp_path):
    recipe = {"version": 1, "model": str(TINYWORLD / "teacher"),
              "calibration": {"text": str(TINYWORLD / "README.md"), "sequences": 4, "length": 64},
              "passes": [{"quantize.fit": FIT}, {"prune.depth": {"remove": 1, "patch": False}}],
              "export": [{"format": "huggingface", "path": "hf"}]}
    said = succeed("plan", write_recipe(tmp_path / "r.yaml", recipe)).stdout
    assert "one of 2 grids" in said
