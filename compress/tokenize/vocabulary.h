// Tokens by id and ids by token.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

// Ids from 0; an id without a token has an empty one.
class Vocabulary {
 public:
  // Highest id that is read: a file with one id of 2^31 must not cost gigabytes.
  static constexpr TokenId kMaxId = (1 << 22) - 1;

  // The first token of a spelling keeps it for `id_of`. Throws BadInput for an id out of range or
  // one that has another token already; `where` names the file.
  void add(std::string_view token, TokenId id, std::string_view where);

  std::optional<TokenId> id_of(std::string_view token) const;
  std::string_view token(TokenId id) const;                              // empty when there is none
  TokenId size() const { return static_cast<TokenId>(tokens_.size()); }  // highest id + 1
  std::size_t count() const { return ids_.size(); }                      // distinct spellings

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  std::vector<std::string> tokens_;
  std::vector<bool> used_;
  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
};

}  // namespace attar::tokenize
