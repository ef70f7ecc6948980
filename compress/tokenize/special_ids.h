// The ids that a tokenizer's users ask for by name.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

struct SpecialIds {
  std::optional<TokenId> bos, eos, unknown, padding;
  std::vector<TokenId> more_ends;  // beside eos
  std::optional<std::string> chat_template;

  // eos first, each once.
  std::vector<TokenId> ends() const {
    std::vector<TokenId> all;
    if (eos) all.push_back(*eos);
    for (const TokenId id : more_ends) {
      if (std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
    }
    return all;
  }
};

}  // namespace attar::tokenize
