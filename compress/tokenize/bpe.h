// Byte-pair encoding by ranked merges (Sennrich et al. 2016, arXiv:1508.07909), as the BPE model of
// tokenizer.json and of GGUF's "gpt2" vocabularies.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "compress/tokenize/merge_loop.h"
#include "compress/tokenize/vocabulary.h"

namespace attar::tokenize {

struct BpeOptions {
  std::optional<TokenId> unknown;  // without it, characters outside of the vocabulary vanish
  bool fuse_unknown = false;       // one unknown token for a run of such characters
  bool byte_fallback = false;      // such a character as "<0xXX>" tokens, where all of them exist
  bool ignore_merges = false;      // a word that is a token as a whole is not merged
  std::string continuing_prefix;   // before every character of a word but the first
  std::string word_suffix;         // after the last character of a word
};

class Bpe {
 public:
  using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;

  // `merges` in the order of rank. Throws BadInput for a merge whose parts or result are not in the
  // vocabulary; `where` names the list.
  Bpe(std::shared_ptr<const Vocabulary> vocabulary, const Pairs& merges, BpeOptions options,
      std::string_view where);

  // Appends the ids of one word (well-formed UTF-8). O(n log n). `parts`, where given, gets what
  // was joined (Tokenizer::encode_noting).
  void encode(std::string_view word, std::vector<TokenId>& ids, MergeParts* parts = nullptr) const;

  // Words are made of these: bytes and the mark for a space where all bytes have a token of their
  // own, else tokens of one character.
  bool is_basic(TokenId id) const;

 private:
  std::vector<Symbol> characters(std::string_view word) const;
  bool append_byte_tokens(std::string_view text, std::vector<Symbol>& symbols) const;

  struct Hash {
    std::size_t operator()(std::uint64_t pair) const {
      pair *= 0x9E3779B97F4A7C15u;
      return pair ^ pair >> 32;
    }
  };
  std::shared_ptr<const Vocabulary> vocabulary_;
  BpeOptions options_;
  std::unordered_map<std::uint64_t, Merge, Hash> merges_;  // left id << 32 | right id
  std::array<TokenId, 256> byte_tokens_{};                 // -1: not in the vocabulary
};

// The ids of "<0x00>" ... "<0xFF>", -1 where there is none.
std::array<TokenId, 256> byte_tokens(const Vocabulary& vocabulary);

}  // namespace attar::tokenize
