"""quantize.embedding and quantize.fit over embedding and head, on stories260K; files keep the codes."""

import json

import gguf
import pytest

from attar_program import attar as program
from attar_program import succeed
from test_tune import JUDGED, notes, recipe_for, run

THREE = {"bits": 3, "group_size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("embedding")


def types_of(path):
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}


def test_errors_moved_by_the_states_of_the_head_cost_less(folder):
    plain = run(folder, "plain", {"quantize.embedding": {**THREE, "method": "rtn"}})
    moved = run(folder, "moved", {"quantize.embedding": THREE})
    assert moved < 0.7 * plain


def test_a_file_keeps_the_codes_and_the_model_computes_the_same(folder):
    out = folder / "file"
    after = run(folder, "file", {"quantize.gptq": {"type": "IQ4_NL", "skip": ["down"]}},
                {"quantize.embedding": {"type": "IQ4_NL"}},
                export=[{"format": "gguf", "path": "model.gguf"}])
    assert types_of(out / "model.gguf")["token_embd.weight"] == "IQ4_NL"
    read = succeed("compare", folder / "model", out / "model.gguf", "--text", JUDGED, "--length", 128,
                   "--windows", 16, "-o", "json").stdout
    assert after > 0
    assert json.loads(read)["kl_mean"]["value"] == pytest.approx(after, rel=1e-3)


def test_what_the_plan_says_of_rows(folder):
    done = program("plan", recipe_for(folder, {"quantize.embedding": {"type": "Q4_K"}}))
    assert done.returncode == 0 and "gptq W5 g32 symmetric" in done.stdout
    done = program("plan", recipe_for(folder, {"quantize.embedding": {"group_size": 48}}))
    assert done.returncode == 4 and "group_size=48, hidden size=64" in done.stderr


def test_fit_over_all_tensors_keeps_the_size_of_the_file(folder):
    types = ["Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
    fit = {"quantize.fit": {"size": "360kB", "types": types, "skip": ["down"], "windows": 16}}
    run(folder, "fit", fit, export=[{"format": "gguf", "path": "model.gguf"}])
    kinds = types_of(folder / "fit/model.gguf")
    assert 200_000 < sum(t.n_bytes for t in gguf.GGUFReader(folder / "fit/model.gguf").tensors) <= 360_000
    assert "held-out" in (notes(folder / "fit", "fit") + notes(folder / "fit", "fit_fell_back"))[0]
    assert kinds["token_embd.weight"] in types and len(set(kinds.values()) & set(types)) > 1


def test_the_short_form_asks_for_every_weight_of_a_gguf(folder):
    recipe_for(folder)
    model, out = folder / "model", folder / "short"
    printed = succeed("quantize", model, "--text", folder / "learnt.txt", "--sequences", 16,
                      "--length", 128, "--grid", "Q5_0", "--embedding", "IQ4_NL",
                      "--print-recipe").stdout
    assert printed.count("Q5_0") == 1 and printed.count("IQ4_NL") == 1
    done = program("quantize", model, "--method", "rtn", "--out", out)
    assert done.returncode == 4 and "172" in done.stderr  # neurons: no multiple of 32
    done = program("quantize", model, "--grid", "IQ4_NL", "--bits", 4, "--print-recipe")
    assert done.returncode == 2 and "not both" in done.stderr
    printed = succeed("quantize", model, "--method", "rtn", "--print-recipe").stdout
    assert printed.count("IQ4_NL") == 2
