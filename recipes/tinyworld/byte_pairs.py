"""A byte-level BPE vocabulary that spells each of the given words as one token.

Digits stand alone and every byte is a token, so any text goes through and comes back; it is the
form that tokenizers, transformers and llama.cpp (pre-tokenizer "smollm") know.
"""

import json

END = "<|endoftext|>"

# tokenizer_config.json
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END,
          "model_max_length": 512}


def alphabet():
    """The printable character of each byte, as GPT-2 has it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = {byte: chr(byte) for byte in plain}
    for number, byte in enumerate(b for b in range(256) if b not in signs):
        signs[byte] = chr(256 + number)
    return [signs[byte] for byte in range(256)]


def learn(words):
    """The merges, in order, after which each word is one symbol: the commonest pair first."""
    signs = alphabet()
    spelled = [[signs[byte] for byte in word.encode()] for word in sorted(set(words))]
    merges = []
    while True:
        counts = {}
        for word in spelled:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_joined(word, best) for word in spelled]


def _joined(word, pair):
    result = []
    for symbol in word:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def tokenizer_json(words):
    """The text of tokenizer.json, and the number of tokens."""
    merges = learn(words)
    vocabulary = [END] + alphabet()
    for left, right in merges:
        if left + right not in vocabulary:
            vocabulary.append(left + right)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": END, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: number for number, token in enumerate(vocabulary)},
                  "merges": [list(pair) for pair in merges]},
    }
    return json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n", len(vocabulary)
