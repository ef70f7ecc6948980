"""Models whose vocabulary was trimmed to a text: what they compute, that transformers and llama.cpp
load them and cut the text into the same pieces, and that what follows in a run speaks their words.

ATTAR_REAL=1 trims SmolLM2 too; it takes minutes.
"""

import json
import os

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import attar
from attar_program import (STORY, attar as program, make_stories, make_text, succeed,
                           write_recipe)
from exports_tools import (SOURCE, ask_llama_cpp, divergence, llama_cpp, load, logits_of, needed,
                           relative_difference)
from test_cli_run import hashes

real = pytest.mark.skipif(os.environ.get("ATTAR_REAL") != "1", reason="needs ATTAR_REAL=1: minutes")


# --- models of each kind of tokenizer ----------------------------------------------------------


def sentencepiece_folder(folder):
    return make_stories(folder / "model")


def gguf_file(folder):
    model = make_stories(folder / "made_from")
    succeed("export", model, "--format", "gguf", "--type", "F32", "--embedding", "F32", "--out",
            folder / "model.gguf")
    return folder / "model.gguf"


def byte_level_folder(folder):
    """A random Llama with a tokenizer of its own: padded rows, a head of its own, two ends."""
    tokenizers = pytest.importorskip("tokenizers")
    path = folder / "model"
    path.mkdir()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = needed(SOURCE / "recipes/calibration.txt").read_text(encoding="utf-8")[:60000]
    tokenizer.train_from_iterator([STORY, words], trainer)
    tokenizer.add_special_tokens(["<s>", "<end>", "<pad>"])
    size = tokenizer.get_vocab_size()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>",
                                                eos_token="<end>", pad_token="<pad>")
    fast.save_pretrained(path)
    torch.manual_seed(5)
    ends = [fast.eos_token_id, fast.pad_token_id]
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2,
                                      vocab_size=size + 12, max_position_embeddings=256,
                                      bos_token_id=fast.bos_token_id, eos_token_id=ends,
                                      pad_token_id=fast.pad_token_id, initializer_range=0.2)
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.eos_token_id = ends
    with torch.no_grad():
        model.lm_head.weight[:257] = 0  # llama.cpp gives no distribution for half a character
    model.save_pretrained(path)
    return path


SOURCES = {"sentencepiece": sentencepiece_folder, "gguf": gguf_file, "byte-level": byte_level_folder}


def trim(folder, model, *later, text="text.txt", options=None, evaluate=True, name="out", more=()):
    """The folder of a run that trims `model` to a text of a few stories."""
    corpus = folder / text
    if not corpus.exists():
        make_text(corpus, 12)
    recipe = {"version": 1, "seed": 2, "model": str(model),
              "calibration": {"text": str(corpus), "sequences": 4, "length": 64},
              "passes": [{"prune.vocab": {"text": str(corpus), **(options or {})}}, *later],
              "export": [{"format": "huggingface", "type": "f32", "path": "hf"},
                         {"format": "gguf", "type": "F32", "embedding": "F32", "path": "m.gguf"}]}
    if evaluate:
        recipe["eval"] = [{"divergence": {"text": str(corpus), "length": 64, "windows": 6}}]
    path = write_recipe(folder / f"{name}.yaml", recipe)
    succeed("run", path, "--out", folder / name, *more)
    return folder / name


def notes(out, kind):
    events = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    return [event["text"] for event in events if event.get("kind") == kind]


def rows_of(model):
    """Which row of the original each row of the trimmed one is, by their values."""
    original, trimmed = model
    places = {row.numpy().tobytes(): i for i, row in enumerate(original)}
    return [places[row.numpy().tobytes()] for row in trimmed]


def embedding(path):
    if path.suffix == ".gguf":
        return load(path.parent, gguf_file=path.name).get_input_embeddings().weight.detach()
    return load(path).get_input_embeddings().weight.detach()


# llama.cpp's own tokenizer on the file, in a process of its own.
TOKENIZE = """
import json, os, sys, urllib.request
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel = 256, 1
params.port, params.warmup, params.n_gpu_layers, params.fit_params = 0, False, 0, False
server = xllamacpp.Server(params)
request = urllib.request.Request(server.listening_address + "/tokenize",
    json.dumps({"content": sys.stdin.read(), "add_special": False, "parse_special": True}).encode(),
    {"Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=300) as answer:
    print(); print("ANSWER " + json.dumps(json.load(answer)["tokens"]), flush=True)
os._exit(0)
"""


def llama_cpp_ids(path, text):
    pytest.importorskip("xllamacpp")
    return ask_llama_cpp(TOKENIZE, path, text=text)


# --- what is left ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_a_trimmed_model_computes_what_it_did_and_loads_everywhere(make, tmp_path):
    source = make(tmp_path)
    out = trim(tmp_path, source)
    text = (tmp_path / "text.txt").read_text()
    original, trimmed = attar.open(source), attar.open(out / "hf")
    kept = rows_of((embedding(source), embedding(out / "hf")))
    assert kept == sorted(kept) and len(kept) < 0.95 * original.config["vocabulary"]
    assert "same pieces" in notes(out, "lossless")[0]

    # The pieces and the logits at the kept rows.
    ids = trimmed.tokenizer.encode(text)
    assert [kept[i] for i in ids] == original.tokenizer.encode(text)
    assert trimmed.tokenizer.decode(ids) == original.tokenizer.decode(original.tokenizer.encode(text))
    for name in ("bos", "eos"):
        now, was = getattr(trimmed.tokenizer, name), getattr(original.tokenizer, name)
        assert kept[now] == was
    ids = trimmed.tokenizer.encode_prompt(text)[:100]
    ours = trimmed.logits(ids)
    before = original.logits([kept[i] for i in ids])[:, kept]
    assert relative_difference(ours, before) < 1e-5
    text_result = json.loads((out / "results.json").read_text())["attar"]["texts"][0]
    assert abs(text_result["kl_mean"]["value"]) < 1e-6
    assert text_result["top1"]["value"] == 1

    # transformers
    assert relative_difference(ours, logits_of(load(out / "hf"), ids)) < 1e-4
    if (out / "hf/tokenizer.json").exists():
        theirs = transformers.AutoTokenizer.from_pretrained(out / "hf")
        assert theirs(text, add_special_tokens=False)["input_ids"] == trimmed.tokenizer.encode(text)
        assert theirs(text)["input_ids"][:100] == ids
        assert theirs.eos_token_id == trimmed.tokenizer.eos
    config = json.loads((out / "hf/config.json").read_text())
    assert config["vocab_size"] == len(kept)

    # llama.cpp
    theirs = llama_cpp(out / "m.gguf", [ids], len(kept))
    assert divergence(ours[-1].double().log_softmax(-1), theirs[0]) < 1e-6
    assert llama_cpp_ids(out / "m.gguf", text) == attar.open(out / "m.gguf").tokenizer.encode(text)
    assert attar.open(out / "m.gguf").tokenizer.encode(text) == trimmed.tokenizer.encode(text)


def test_every_id_of_the_other_files_follows(tmp_path):
    source = byte_level_folder(tmp_path)
    out = trim(tmp_path, source, evaluate=False)
    kept = rows_of((embedding(source), embedding(out / "hf")))
    for name in ("config.json", "generation_config.json"):
        was, now = (json.loads((path / name).read_text()) for path in (source, out / "hf"))
        for key in ("bos_token_id", "pad_token_id"):
            assert kept[now[key]] == was[key], (name, key)
        assert [kept[i] for i in now["eos_token_id"]] == was["eos_token_id"], name
    was, now = (json.loads((path / "tokenizer.json").read_text()) for path in (source, out / "hf"))
    assert {t["content"]: kept[t["id"]] for t in now["added_tokens"]} == {
        t["content"]: t["id"] for t in was["added_tokens"]}
    tokens = now["model"]["vocab"]
    assert all(a in tokens and b in tokens and a + b in tokens for a, b in now["model"]["merges"])
    assert 0 < len(now["model"]["merges"]) < len(was["model"]["merges"])


def test_any_text_can_still_be_read(tmp_path):
    out = trim(tmp_path, byte_level_folder(tmp_path), evaluate=False)
    tokenizer = attar.open(out / "hf").tokenizer
    text = "Zürich, 中文 \U0001F600\n\tfor (int i = 0;)"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_size_takes_the_least_used_away_and_says_so(tmp_path):
    source = gguf_file(tmp_path)
    out = trim(tmp_path, source, options={"size": 300})
    assert attar.open(out / "hf").config["vocabulary"] == 300
    assert not notes(out, "lossless")
    said = notes(out, "not_lossless")[0]
    print(said)
    # More tokens a word, and the models are compared on the same pieces.
    words = said.split("(")[1].split(" a word")[0].split(" and ")
    assert float(words[1]) > float(words[0])
    found = json.loads((out / "results.json").read_text())["attar"]["texts"][0]
    assert abs(found["kl_mean"]["value"]) < 1e-6
    assert 0 < found["probability_of_dropped_tokens"]["value"] < 1


def test_the_plan_says_who_decides(tmp_path):
    make_text(tmp_path / "text.txt", 12)
    recipe = {"version": 1, "model": str(sentencepiece_folder(tmp_path)),
              "passes": [{"prune.vocab": {"text": str(tmp_path / "text.txt")}}]}
    said = succeed("plan", write_recipe(tmp_path / "r.yaml", recipe)).stdout
    assert "decided by the text" in said
    recipe["passes"][0]["prune.vocab"]["size"] = 300
    said = succeed("plan", write_recipe(tmp_path / "r.yaml", recipe)).stdout
    assert "at most 300" in said
    recipe["passes"] = [{"prune.vocab": {}}]
    done = program("plan", write_recipe(tmp_path / "r.yaml", recipe))
    assert done.returncode == 2 and "name a file of text" in done.stderr


# --- what follows in a run ---------------------------------------------------------------------


def test_later_passes_read_with_the_trimmed_tokenizer(tmp_path):
    source = gguf_file(tmp_path)
    learn = {"text": str(tmp_path / "text.txt"), "steps": 2, "batch": 2, "length": 32,
             "learning_rate": 1e-9}
    out = trim(tmp_path, source, {"distill": {**learn, "loss": ["forward_kl"]}},
               {"quantize.gptq": {"bits": 8, "group_size": 32, "skip": ["down"]}})
    # The teacher speaks the student's words: nothing is to be learnt.
    first = notes(out, "training")[0].split(";")[0]
    assert float(first.split("first step: loss ")[1].split(",")[0]) < 1e-6, first
    found = json.loads((out / "results.json").read_text())["attar"]["texts"][0]
    assert 0 < found["kl_mean"]["value"] < 0.01


def test_trimmed_again_and_gone_on_with_it_is_the_same(tmp_path):
    source = byte_level_folder(tmp_path)
    second = make_text(tmp_path / "second.txt", 1)
    again = {"prune.vocab": {"text": str(second)}}
    width = {"prune.width": {"ffn": 0.5, "align": 16}}
    straight = trim(tmp_path, source, again, width, name="straight")
    # The gate stops the run behind its passes; without it the same passes are found done.
    recipe = json.loads((tmp_path / "straight.yaml").read_text())
    recipe["gate"] = {"kl_mean": 1e-9, "action": "stop"}
    gated = write_recipe(tmp_path / "gated.yaml", recipe)
    assert program("run", gated, "--out", tmp_path / "resumed").returncode == 6
    succeed("run", tmp_path / "straight.yaml", "--out", tmp_path / "resumed")
    restored = (tmp_path / "resumed/run.jsonl").read_text()
    assert "layer_restored" in restored
    assert hashes(tmp_path / "resumed") == hashes(straight)
    tokenizer = attar.open(straight / "hf").tokenizer
    assert tokenizer.decode(tokenizer.encode(second.read_text())) == second.read_text()
    kept = rows_of((embedding(source), embedding(straight / "hf")))
    original = attar.open(source).tokenizer
    assert [kept[i] for i in tokenizer.encode(second.read_text())] == original.encode(
        second.read_text())


def lora(folder):
    return {"train.lora": {"text": str(folder / "text.txt"), "rank": 2, "steps": 3, "batch": 2,
                           "length": 32, "merge": False}}


def test_the_plan_refuses_an_adapter_beside_a_trimmed_model(tmp_path):
    text = make_text(tmp_path / "text.txt", 12)
    recipe = {"version": 1, "model": str(sentencepiece_folder(tmp_path)),
              "passes": [{"prune.vocab": {"text": str(text)}}, lora(tmp_path)],
              "export": [{"format": "peft", "path": "adapter"}]}
    done = program("plan", write_recipe(tmp_path / "r.yaml", recipe))
    assert done.returncode == 4 and "the vocabulary has changed" in done.stderr, done.stderr


def test_a_model_with_an_adapter_is_trimmed_with_the_tokenizer_of_its_base(tmp_path):
    text = make_text(tmp_path / "text.txt", 12)
    base = sentencepiece_folder(tmp_path)
    recipe = {"version": 1, "model": str(base), "passes": [lora(tmp_path)],
              "export": [{"format": "peft", "path": "adapter"}]}
    succeed("run", write_recipe(tmp_path / "r.yaml", recipe), "--out", tmp_path / "learnt")
    source = tmp_path / "learnt/adapter"
    out = trim(tmp_path, source)
    original, trimmed = attar.open(source), attar.open(out / "hf")
    kept = rows_of((embedding(base), embedding(out / "hf")))
    ids = trimmed.tokenizer.encode(text.read_text())[:100]
    assert [kept[i] for i in ids] == original.tokenizer.encode(text.read_text())[:100]
    assert relative_difference(trimmed.logits(ids),
                               original.logits([kept[i] for i in ids])[:, kept]) < 1e-5


def test_exported_models_are_compared_by_their_pieces(tmp_path):
    source = gguf_file(tmp_path)
    out = trim(tmp_path, source, evaluate=False)
    text = tmp_path / "text.txt"
    found = json.loads(succeed("compare", source, out / "hf", "--text", text, "--length", 64,
                               "--windows", 4, "-o", "json").stdout)
    assert abs(found["kl_mean"]["value"]) < 1e-6
    assert found["probability_of_dropped_tokens"]["value"] > 0
    other = program("compare", out / "hf", source, "--text", text, "--length", 64)
    assert other.returncode == 3 and "is none of these" in other.stderr


# --- SmolLM2 -----------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("form", ["smollm2", "smollm2.gguf"])
def test_smollm2_trimmed_to_english(form, tmp_path):
    source = needed(SOURCE / "models" / form)
    text = needed(SOURCE / "recipes/calibration.txt").read_text(encoding="utf-8")
    recipe = {"version": 1, "model": str(source),
              "passes": [{"prune.vocab": {"text": str(SOURCE / "recipes/calibration.txt")}}],
              "export": [{"format": "huggingface", "path": "hf"},
                         {"format": "gguf", "type": "auto", "path": "m.gguf"}]}
    out = tmp_path / "out"
    succeed("run", write_recipe(tmp_path / "r.yaml", recipe), "--out", out, timeout=1200)
    assert "same pieces" in notes(out, "lossless")[0]
    # What keeps the source's own codes and values.
    trimmed = attar.open(out / ("m.gguf" if form.endswith(".gguf") else "hf"))
    rows = trimmed.config["vocabulary"]
    print(f"{form}: {rows} of 49152 rows")
    assert rows < 17000
    ids = trimmed.tokenizer.encode(text)
    theirs = transformers.AutoTokenizer.from_pretrained(out / "hf")
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    whole = transformers.AutoTokenizer.from_pretrained(needed(SOURCE / "models/smollm2"))
    kept = whole.convert_tokens_to_ids(theirs.convert_ids_to_tokens(list(range(rows))))
    original = attar.open(source)
    was = original.tokenizer.encode(text)
    assert [kept[i] for i in ids] == was
    assert relative_difference(trimmed.logits(ids[:128]), original.logits(was[:128])[:, kept]) < 1e-5
    in_folder = attar.open(out / "hf").logits(ids[:128])
    assert relative_difference(in_folder, logits_of(load(out / "hf"), ids[:128])) < 1e-4

    assert llama_cpp_ids(out / "m.gguf", text[:20000]) == trimmed.tokenizer.encode(text[:20000])
    found = divergence(attar.open(out / "m.gguf").logits(ids[:40])[-1].double().log_softmax(-1),
                       llama_cpp(out / "m.gguf", [ids[:40]], rows)[0])
    print(f"{form}: KL to llama.cpp {found:.1e}")
    assert found < 0.05  # the bound of Q4_1 in test_exports_load.py
