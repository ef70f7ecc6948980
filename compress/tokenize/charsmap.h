// The precompiled character map of sentencepiece: a double-array trie (as darts-clone writes it)
// from character sequences to their replacement, for nmt_nfkc, nfkc_cf and the like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attar::tokenize {

class Charsmap {
 public:
  Charsmap() = default;

  // u32 size of the trie in bytes (little-endian) | trie units u32 | replacements, each ended by 0.
  // Empty `blob`: maps nothing. Throws BadInput; lookups in a broken trie stay inside of it.
  Charsmap(std::string_view blob, std::string_view where);

  bool empty() const { return units_.empty(); }

  struct Replacement {
    std::size_t length = 0;  // bytes that are replaced; 0 when the text starts with no key
    std::string_view text;
  };
  // For the longest key that starts `text`.
  Replacement longest(std::string_view text) const;

 private:
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace attar::tokenize
