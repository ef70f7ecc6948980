"""quantize.fit in a recipe: what it chooses goes into the files that can hold every choice."""

import json

from effects_tools import run

FIT = {"bits": 5.5, "widths": [4, 8], "group_sizes": [32], "embedding": False, "method": "rtn"}


def test_what_it_chose_goes_into_compressed_tensors(tmp_path):
    _, out = run(tmp_path, "fit", "tinyworld", [{"quantize.fit": FIT}],
                 [{"format": "compressed-tensors", "path": "hf"}])
    groups = json.loads((out / "hf/config.json").read_text())["quantization_config"]["config_groups"]
    assert {group["weights"]["num_bits"] for group in groups.values()} == {4, 8}
