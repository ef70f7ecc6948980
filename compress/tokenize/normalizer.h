// Normalizers of tokenizer.json: text to text, before added tokens with `normalized` are sought.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compress/tokenize/json_field.h"

namespace attar::tokenize {

// A text on its way to the model. `at_start`: its first character is the first of the whole input.
struct Piece {
  std::string text;
  bool at_start = false;
};

using Normalizer = std::function<void(Piece&)>;

// NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, Precompiled, ByteLevel,
// Sequence. Throws BadInput for another type.
Normalizer read_normalizer(const Node& node);

}  // namespace attar::tokenize
