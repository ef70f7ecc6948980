// Tokens that are cut out of the text before the model sees it: "<|im_end|>", runs of spaces, ...
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

// Byte strings with a number each; finds the longest that starts a text.
class PrefixTrie {
 public:
  // A string that stands already gets the new number. Empty strings are not stored.
  void add(std::string_view text, std::int32_t number);

  struct Match {
    std::size_t length = 0;  // bytes; 0 when nothing matches
    std::int32_t number = -1;
  };
  Match longest(std::string_view text) const;

  bool empty() const { return edges_.empty(); }

 private:
  struct Hash {
    std::size_t operator()(std::uint64_t key) const { return key * 0x9E3779B97F4A7C15u; }
  };
  std::unordered_map<std::uint64_t, std::uint32_t, Hash> edges_;  // node << 8 | byte -> node
  std::vector<std::int32_t> numbers_{-1};                         // of each node
  bool starts_[256] = {};
};

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool single_word = false;  // only between characters that are no \w
  bool lstrip = false;       // swallows the whitespace before it
  bool rstrip = false;
  bool normalized = false;  // sought in the normalized text, normalized itself
};

// A part of a text: a token that was found there, or text that still needs a model.
struct Part {
  std::optional<TokenId> token;
  std::size_t begin = 0;  // bytes of the text
  std::size_t end = 0;
};

// Finds added tokens leftmost first, the longest at an equal start.
class AddedTokenFinder {
 public:
  // `content` is what to look for: the token's own, or its normalized form.
  void add(const AddedToken& token, std::string_view content);

  // Covers well-formed `text` without gaps; no part is empty.
  std::vector<Part> split(std::string_view text) const;

 private:
  PrefixTrie trie_;
  std::vector<AddedToken> tokens_;
};

}  // namespace attar::tokenize
