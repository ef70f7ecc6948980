// Post-processors of tokenizer.json: the special tokens around one text.
#pragma once

#include <vector>

#include "compress/tokenize/json_field.h"
#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

struct Surrounding {
  std::vector<TokenId> before;
  std::vector<TokenId> after;
};

// TemplateProcessing (its template for a single text), BertProcessing, RobertaProcessing, ByteLevel
// (changes no ids), Sequence. Throws BadInput for another type.
Surrounding read_post_processor(const Node& node);

}  // namespace attar::tokenize
