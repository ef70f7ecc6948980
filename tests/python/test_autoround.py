"""quantize.autoround on a model that knows something: stories260K at three bits."""

import json

import pytest

from attar_program import attar as program
from test_tune import ROUNDING, ends_alike_when_killed, notes, recipe_for, run


def autoround(**options):
    return {"quantize.autoround": {"steps": 60, "learning_rate": 0.01, "held_out": 4, **options}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("autoround")


@pytest.mark.parametrize("method, share", [("rtn", 0.5), ("gptq", 0.9)])
def test_learnt_rounding_lowers_the_divergence(folder, method, share):
    rounding = {f"quantize.{method}": ROUNDING}
    before, after = run(folder, method, rounding), run(folder, f"{method}_learnt", rounding,
                                                       autoround())
    print(f"KL behind {method} {before:.4f}, learnt {after:.4f}")
    assert after < share * before
    assert len(notes(folder / f"{method}_learnt", "autorounded")) == 5


def test_kills_and_threads_end_in_the_same_bytes(folder):
    recipe = recipe_for(folder, {"quantize.gptq": {**ROUNDING, "bits": 4, "rules": [],
                                                     "skip": ["down"]}},
                        autoround(steps=20), eval=None,
                        export=[{"format": "compressed-tensors", "path": "hf"}])
    events = ends_alike_when_killed(folder, recipe, "block-00002-*.json")
    assert sum(event.get("restored", False) for event in events) >= 3


def fit(**options):
    return {"quantize.fit": {"bits": 3.5, "group_sizes": [4, 16, 32, 43], "embedding": False,
                             "method": "awq+gptq+autoround", **options}}


def test_it_also_learns_where_the_formats_were_chosen(folder):
    before, after = run(folder, "fit", fit(method="awq+gptq")), run(folder, "fit_learnt", fit())
    print(f"KL behind fit {before:.4f}, learnt {after:.4f}")
    assert after < 0.97 * before
    assert len(notes(folder / "fit_learnt", "autorounded")) == 5
    results = json.loads((folder / "fit_learnt/results.json").read_text())
    assert 3.2 < results["attar"]["bits_per_weight"] <= 3.5  # the plan did not know


def test_a_fit_killed_between_blocks_ends_in_the_same_bytes(folder):
    (folder / "killing").mkdir()
    recipe = recipe_for(folder, fit(), eval=None, export=[{"format": "huggingface", "path": "hf"}])
    events = ends_alike_when_killed(folder / "killing", recipe, "reports-2.json")
    assert [event for event in events if event.get("kind") == "fit_resumed"]


def test_a_fit_leaves_what_it_is_told_to_and_reads_nothing_damaged(folder):
    """The first block plain; a block's file cut short is made again."""
    (folder / "damaged").mkdir()
    recipe = recipe_for(folder, fit(skip=["model.layers.0.*"]), eval=None,
                        export=[{"format": "huggingface", "path": "hf"}])

    def cut(state):
        path = next(state.rglob("block-00001.safetensors"))
        path.write_bytes(path.read_bytes()[:1000])

    ends_alike_when_killed(folder / "damaged", recipe, "reports-2.json", damage=cut)


def test_it_stands_right_behind_a_pass_that_rounds(folder):
    between = recipe_for(folder, {"quantize.rtn": ROUNDING}, {"quantize.embedding": {
        "type": "Q8_0"}}, autoround())
    for words in (["plan"], ["run", "--out", folder / "between"]):
        done = program(words[0], between, *words[1:])
        assert done.returncode == 2
        assert "the weights as they were before rounding, which are gone" in done.stderr
