// Pre-tokenizers of tokenizer.json: cut a text into the words that the model merges within.
#pragma once

#include <functional>
#include <vector>

#include "compress/tokenize/normalizer.h"
#include "compress/tokenize/pattern.h"

namespace attar::tokenize {

// What becomes of the delimiters when a text is split at them. Example: "a--b" at each '-'
enum class SplitBehavior {
  removed,               // a | b
  isolated,              // a | - | - | b
  merged_with_previous,  // a- | - | b
  merged_with_next,      // a | - | -b
  contiguous,            // a | -- | b
};

// Splits each piece further; no piece comes out empty.
using PreTokenizer = std::function<void(std::vector<Piece>&)>;

// ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, Sequence. Throws
// BadInput for another type.
PreTokenizer read_pre_tokenizer(const Node& node);

// The parts of `text` that `behavior` leaves, given its delimiters (leftmost first, no overlap).
std::vector<Span> split_at(std::string_view text, const std::vector<Span>& delimiters,
                           SplitBehavior behavior, bool invert);

}  // namespace attar::tokenize
