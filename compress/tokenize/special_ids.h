// The ids that a tokenizer's users ask for by name.
#pragma once

#include <optional>
#include <string>

#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

struct SpecialIds {
  std::optional<TokenId> bos, eos, unknown, padding;
  std::optional<std::string> chat_template;
};

}  // namespace attar::tokenize
