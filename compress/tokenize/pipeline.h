// The pipeline of tokenizer.json: added tokens, normalizer, pre-tokenizer, BPE, post-processor;
// decoder for the way back. Byte-level GGUF vocabularies run through it as well.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "compress/tokenize/added_tokens.h"
#include "compress/tokenize/bpe.h"
#include "compress/tokenize/decoder.h"
#include "compress/tokenize/normalizer.h"
#include "compress/tokenize/post_processor.h"
#include "compress/tokenize/pre_tokenizer.h"
#include "compress/tokenize/special_ids.h"
#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

struct PipelineParts {
  Vocabulary vocabulary;  // the model's and the added tokens
  std::shared_ptr<const Bpe> model;
  std::vector<AddedToken> added;
  Normalizer normalizer;       // may be empty
  PreTokenizer pre_tokenizer;  // may be empty
  Decoder decoder;             // may be empty: tokens joined by spaces
  Surrounding surrounding;     // what add_special puts around
  SpecialIds special;
  // What the decoder gets for an id, where that is not the token.
  std::unordered_map<TokenId, std::string> spelling;
};

std::shared_ptr<const Tokenizer> make_pipeline(PipelineParts parts);

}  // namespace attar::tokenize
