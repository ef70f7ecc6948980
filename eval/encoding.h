// From strings to what a model is asked, as lm-evaluation-harness cuts them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar::eval {

// A scored stretch of tokens and what stands before it; neither is empty.
struct EncodedRequest {
  std::vector<TokenId> context;
  std::vector<TokenId> target;

  // What one forward pass is fed: the last target token is predicted only.
  std::int64_t input_tokens() const {
    return static_cast<std::int64_t>(context.size() + target.size()) - 1;
  }
};

// What stands in for an empty context: BOS, else EOS. Throws BadInput if there is neither.
TokenId prefix_token(const Tokenizer& tokenizer);

// Ids of a text as a model expects it: with BOS where the tokenizer adds one.
std::vector<TokenId> encode_prompt(const Tokenizer& tokenizer, std::string_view text);

// Whitespace at the end of `context` moves to the front of `target`; then the target's ids are
// those of both together past as many as the context has alone. Where the tokenizer merges across
// the border the two do not join to the ids of the whole; the harness lives with that, and so do
// its scores. Throws BadInput if no token is left to score.
EncodedRequest encode_pair(const Tokenizer& tokenizer, std::string_view context,
                           std::string_view target);

// encode_pair for several targets of one context, which is tokenized once.
std::vector<EncodedRequest> encode_pairs(const Tokenizer& tokenizer, std::string_view context,
                                         std::span<const std::string> targets);

// Drops the start of the context so that input_tokens() <= max_length. Throws DoesNotFit if the
// target alone is longer than max_length.
void cut_left(EncodedRequest& request, std::int64_t max_length);

// Windows that score every token of a text once, the first after `prefix`, each later one after
// what fits in front of it: one token for a full window, more for the last. Inputs are
// min(max_length, ids.size()) long. max_length >= 2.
std::vector<EncodedRequest> rolling_windows(std::span<const TokenId> ids, TokenId prefix,
                                            std::int64_t max_length);

}  // namespace attar::eval
