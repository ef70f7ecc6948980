#include "compress/tokenize/vocabulary.h"

#include "compress/core/errors.h"

namespace attar::tokenize {

void Vocabulary::add(std::string_view token, TokenId id, std::string_view where) {
  require(id >= 0 && id <= kMaxId, where, "token '", token, "' has id ", id,
          ", ids must be in [0, ", kMaxId, "]");
  if (id >= size()) {
    tokens_.resize(id + 1);
    used_.resize(id + 1);
  }
  require(!used_[id], where, "id ", id, " belongs to both '", tokens_[id], "' and '", token, "'");
  used_[id] = true;
  tokens_[id] = token;
  ids_.try_emplace(tokens_[id], id);
}

std::optional<TokenId> Vocabulary::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::string_view Vocabulary::token(TokenId id) const {
  return id >= 0 && id < size() ? std::string_view(tokens_[id]) : std::string_view();
}

}  // namespace attar::tokenize
