"""Ids and texts equal those of the `tokenizers` package, which wrote the files.

Drives build/bin/tokenize_lines (ATTAR_BUILD_DIR names the build folder).
"""

import json
import os
import pathlib
import random
import subprocess
import unicodedata

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
BUILD = ROOT / os.environ.get("ATTAR_BUILD_DIR", "build")
PROGRAM = BUILD / "bin" / "tokenize_lines"
SMOLLM2 = pathlib.Path(os.environ.get("ATTAR_SMOLLM2", ROOT / "models" / "smollm2"))
NEOX = SHARED / "data" / "tokenizers" / "hf" / "gpt-neox-20b_tokenizer.json"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"needs {PROGRAM}: build tokenize_lines")

# Characters that Python 3.11 knows (Unicode 14), as PCRE2 10.42 does; no surrogates.
ASSIGNED = [
    chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")
]
FRAGMENTS = [
    "\U0001F469\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466",  # a family, joined
    "\U0001F44D\U0001F3FD", "\U0001F1E9\U0001F1EA", "\u2764\uFE0F",
    "\u05E9\u05DC\u05D5\u05DD", "\u0645\u0631\u062D\u0628\u0627", "\u202Eabc\u202C",
    "e\u0301", "a\u0308\u0323", "\u1E9B\u0323", "\uFB01", "\u2460", "\u00BD", "\u0130", "\u017F",
    "\r\n", "\n\n\n", "\r", "\t", "\x00", "\x1B[0m", "\x7F", "\u0085", "\u2028", "\u180E", "\uFEFF",
    "   ", " " * 24, " " * 31, "\u00A0", "\u3000", "\u2003 ",
    "12345678901234567890", "3.14159", "\u0663\u0664", "\u4E00\u4E8C", "\u2167", "1e-10",
    "I'm", "we'LL", "they\u2019ve", "'s", "''", "\u2581", "\u2581\u2581a", "<0x0A>", "<s>", "</s>",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|endoftext", "<file_sep><repo_name>", "<|padding|>",
    "|||EMAIL_ADDRESS|||", "the", " The", "Hello", " world", "\uFFFD", "snake_case", "CamelCase",
    "{\"a\": [1, 2]}", "https://example.org/?q=1&r=%20", "...", "!?", "--", "\\n", "$x^2$",
    "\u0928\u092E\u0938\u094D\u0924\u0947", "\uD55C\uAD6D\uC5B4", "\u1112\u1161\u11AB", "\u3053\u3093",
]


def random_text(random_source):
    """A few fragments, words of one script, and characters from anywhere."""
    parts = []
    for _ in range(random_source.randrange(1, 12)):
        kind = random_source.random()
        if kind < 0.35:
            parts.append(random_source.choice(FRAGMENTS))
        elif kind < 0.5:
            parts.append("".join(random_source.choice(ASSIGNED) for _ in range(random_source.randrange(1, 9))))
        elif kind < 0.7:
            start = random_source.randrange(len(ASSIGNED) - 64)
            near = ASSIGNED[start:start + 64]
            parts.append("".join(random_source.choice(near) for _ in range(random_source.randrange(1, 9))))
        elif kind < 0.9:
            parts.append("".join(random_source.choice("etaoin shrdlu0179.,'-_\n") for _ in range(12)))
        else:
            parts.append(" " * random_source.randrange(1, 40))
        if random_source.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def texts(count, seed=7):
    source = random.Random(seed)
    return ["", " ", "\n"] + FRAGMENTS + [random_text(source) for _ in range(count - 3 - len(FRAGMENTS))]


def run(path, lines, *arguments):
    """One answer {"ids", "text", "full"} for each text."""
    joined = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([PROGRAM, path, *arguments], input=joined.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def expect_equal(path, count, special=False):
    expect_equal_on(path, texts(count), special)


def expect_equal_on(path, lines, special=False):
    oracle = tokenizers.Tokenizer.from_file(str(path))
    answers = run(path, lines, *(["special"] if special else []))
    assert len(answers) == len(lines)
    expected = [e.ids for e in oracle.encode_batch(lines, add_special_tokens=special)]
    for line, answer, ids in zip(lines, answers, expected):
        assert answer["ids"] == ids, f"ids of {line!r}"
    for line, answer, text in zip(lines, answers, oracle.decode_batch(expected)):
        assert answer["text"] == text, f"text of {line!r}"
    for line, answer, text in zip(lines, answers, oracle.decode_batch(expected, skip_special_tokens=False)):
        assert answer["full"] == text, f"whole text of {line!r}"


def test_smollm2_equals_tokenizers_on_ten_thousand_texts():
    path = SMOLLM2 / "tokenizer.json"
    if not path.exists():
        pytest.skip(f"needs {path}; ATTAR_SMOLLM2 names the folder")
    expect_equal(path, 10_000)


def test_gpt_neox_equals_tokenizers_on_ten_thousand_texts():
    if not NEOX.exists():
        pytest.skip(f"needs {NEOX}")
    expect_equal(NEOX, 10_000)


def test_smollm2_gguf_equals_its_tokenizer_json():
    gguf = SMOLLM2.with_suffix(".gguf")
    for path in (gguf, SMOLLM2 / "tokenizer.json"):
        if not path.exists():
            pytest.skip(f"needs {path}; ATTAR_SMOLLM2 names the folder")
    lines = texts(2_000)
    assert run(gguf, lines) == run(SMOLLM2, lines)


def corpus():
    """Text to train on: own words, so that no file is needed."""
    source = random.Random(11)
    words = "the a of boil down model weight layer token merge space quick brown fox jumps 17 2048 don't".split()
    words += ["na\u00EFve", "stra\u00DFe", "\u4E2D\u6587", "\u043C\u0438\u0440", "caf\u00E9"]
    return [" ".join(source.choice(words) for _ in range(30)) + "\n" for _ in range(300)]


def train(tokenizer, size=600, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(pre_tokenizer=None, normalizer=None, **model):
    tokenizer = tokenizers.Tokenizer(models.BPE(**model))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre_tokenizer is None)
    tokenizer.pre_tokenizer = level if pre_tokenizer is None else pre_tokenizers.Sequence([pre_tokenizer, level])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                 special_tokens=["<s>", "</s>", "<|endoftext|>"])


def metaspace(scheme, split):
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer = train(tokenizer, size=900, special_tokens=["<unk>", "<s>", "</s>"] + bytes_)
    # Bytes are tokens of the model, not added ones, in the files that models ship.
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = file["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(file))


def llama_like():
    """No pre-tokenizer: a mark in front, spaces become marks, the whole text is one word."""
    tokenizer = metaspace("always", True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    file = json.loads(tokenizer.to_str())
    file["pre_tokenizer"] = None
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(file))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def characters(**model):
    """A small alphabet, so that much is unknown."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]", **model))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix=model.get("end_of_word_suffix") or "</w>")
    options = {"end_of_word_suffix": model["end_of_word_suffix"]} if "end_of_word_suffix" in model else {}
    if "continuing_subword_prefix" in model:
        options["continuing_subword_prefix"] = model["continuing_subword_prefix"]
    return train(tokenizer, special_tokens=["[UNK]"], **options)


def with_added(tokenizer):
    add = tokenizers.AddedToken
    tokenizer.add_tokens([
        add("Hello", single_word=True), add("the", single_word=True, normalized=False),
        add(" world", lstrip=True), add("--", rstrip=True, lstrip=True), add("12345"), add("123"),
        add("I'M", normalized=True)])
    tokenizer.add_special_tokens([add("<|im_end|>", rstrip=True), add("<|im_start|>", lstrip=True)])
    return tokenizer


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(expression, behavior, invert=False):
    return pre_tokenizers.Split(Regex(expression), behavior, invert)


KINDS = {
    "byte_level": byte_level,
    "prefix_space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)),
    "llama3_words": lambda: byte_level(split(LLAMA3, "isolated")),
    "digits": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "digit_runs": lambda: byte_level(pre_tokenizers.Digits(individual_digits=False)),
    "removed": lambda: byte_level(split(r"\s+", "removed")),
    "previous": lambda: byte_level(split(r"[aeiou\p{P}]", "merged_with_previous")),
    "next": lambda: byte_level(split(r"[aeiou\p{P}]", "merged_with_next")),
    "contiguous": lambda: byte_level(split(r"\p{L}", "contiguous")),
    "inverted": lambda: byte_level(split(r"\p{L}+|\p{N}+", "removed", invert=True)),
    "inverted_next": lambda: byte_level(split(r"\w", "merged_with_next", invert=True)),
    "literal": lambda: byte_level(pre_tokenizers.Split(".", "isolated")),
    "words": lambda: byte_level(pre_tokenizers.Whitespace()),
    "spaces": lambda: byte_level(pre_tokenizers.WhitespaceSplit()),
    "punctuation": lambda: byte_level(pre_tokenizers.Punctuation()),
    "punctuation_runs": lambda: byte_level(pre_tokenizers.Punctuation("contiguous")),
    "nfc": lambda: byte_level(normalizer=normalizers.NFC()),
    "nfd": lambda: byte_level(normalizer=normalizers.NFD()),
    "nfkc": lambda: byte_level(normalizer=normalizers.NFKC()),
    "nfkd_lower": lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])),
    "no_accents": lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "strip": lambda: byte_level(normalizer=normalizers.Strip(True, True)),
    "replace": lambda: byte_level(normalizer=normalizers.Replace(Regex(r"\s{2,}|[0-9]"), " # ")),
    "ignore_merges": lambda: byte_level(ignore_merges=True),
    "metaspace_always": lambda: metaspace("always", True),
    "metaspace_first": lambda: metaspace("first", True),
    "metaspace_never_whole": lambda: metaspace("never", False),
    "llama_like": llama_like,
    "unknown": characters,
    "fused_unknown": lambda: characters(fuse_unk=True),
    "suffix": lambda: characters(end_of_word_suffix="</w>"),
    "continuing": lambda: characters(continuing_subword_prefix="##"),
    "added": lambda: with_added(byte_level()),
    "added_lower": lambda: with_added(byte_level(normalizer=normalizers.Lowercase())),
    "added_metaspace_first": lambda: with_added(metaspace("first", True)),
    "added_llama_like": lambda: with_added(llama_like()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_trained_here_equals_tokenizers(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    KINDS[kind]().save(str(path))
    expect_equal(path, 1_500, special=True)


@pytest.mark.parametrize("kind", ["nfc", "nfd", "nfkc", "nfkd_lower", "no_accents", "punctuation", "digits"])
def test_every_assigned_character_is_read_alike(kind, tmp_path):
    """Each beside a mark of class 1 and behind one of class 240, so that its own class shows."""
    path = tmp_path / "tokenizer.json"
    KINDS[kind]().save(str(path))
    characters_ = [c for c in ASSIGNED if unicodedata.category(c) != "Co"]
    near = [characters_[i:i + 64] for i in range(0, len(characters_), 64)]
    lines = ["".join(c + "\u0334x" for c in part) for part in near]
    lines += ["".join("\u0345" + c + "x" for c in part) for part in near]
    expect_equal_on(path, lines)


@pytest.mark.parametrize("change, words", [
    ({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}}, ["model", "Unigram"]),
    ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": ""}]}},
     ["normalizer.normalizers[0]", "Precompiled"]),
    ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, ["pre_tokenizer", "BertPreTokenizer"]),
    ({"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}, ["decoder", "WordPiece"]),
    ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
     ["pre_tokenizer.pattern.Regex", "does not compile"]),
])
def test_what_is_not_read_is_refused_with_file_path_and_type(change, words, tmp_path):
    path = tmp_path / "tokenizer.json"
    file = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    path.write_text(json.dumps(file | change))
    done = subprocess.run([PROGRAM, path], input=b"", capture_output=True, check=False)
    assert done.returncode == 3
    for word in [str(path), *words]:
        assert word in done.stderr.decode()


@pytest.mark.parametrize("options", [
    {}, {"normalization_rule_name": "nmt_nfkc_cf", "user_defined_symbols": ["<|im_end|>", "Hello", "the"]},
    {"byte_fallback": True, "vocab_size": 450, "normalization_rule_name": "identity",
     "remove_extra_whitespaces": False, "user_defined_symbols": ["\u2581\u2581", "   ", "</x>"]},
    {"treat_whitespace_as_suffix": True}, {"add_dummy_prefix": False}, {"split_by_whitespace": False},
], ids=["nfkc", "folded", "bytes", "suffix", "no_prefix", "crossing"])
def test_a_sentencepiece_model_trained_here_equals_sentencepiece(options, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text("".join(corpus()), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(**({
        "input": str(tmp_path / "text.txt"), "model_prefix": str(tmp_path / "m"), "model_type": "bpe",
        "vocab_size": 200, "minloglevel": 2} | options))
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    lines = texts(1_500)
    for line, answer in zip(lines, run(tmp_path / "m.model", lines)):
        assert answer["ids"] == oracle.encode(line), f"ids of {line!r}"
        assert answer["text"] == oracle.decode(answer["ids"]), f"text of {line!r}"
