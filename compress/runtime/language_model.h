// What an evaluation asks of a model: log-likelihoods of continuations and greedy text. Torch-free,
// so that tasks, metrics and their tests need no tensor library.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar {

// How one continuation does after its prefix. All numbers are finite.
struct ContinuationScore {
  double log_likelihood = 0;  // nats; sum of token_log_probabilities, added in double in order
  bool is_greedy = true;      // every token is the first index of the largest logit at its place
  std::vector<float> token_log_probabilities;  // nats, one per continuation token
};

// What greedy decoding gave: the new tokens alone. If an id of stop_ids ended it, that id is the
// last one (lm-evaluation-harness keeps it too; decoding drops it as a special token).
struct Generation {
  std::vector<TokenId> ids;
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual const Tokenizer& tokenizer() const = 0;

  // The most positions that one forward pass may hold.
  virtual std::int64_t max_length() const = 0;

  // Scores every continuation after the same prefix, which is computed once; a prefix that shares
  // its beginning with that of the call before is computed only from where they part.
  //
  //   prefix         at least one token
  //   continuations  each at least one token; the last token of each is predicted and never fed, so
  //                  prefix.size() + continuation.size() - 1 <= max_length()
  //
  // The result has one entry a continuation, in order, and does not depend on what was asked
  // before, nor on which other continuations stand beside. Throws UsageError if the sizes do not
  // hold, NumericRefusal on a non-finite logit.
  virtual std::vector<ContinuationScore> score(
      std::span<const TokenId> prefix, std::span<const std::vector<TokenId>> continuations) = 0;

  // Greedy decoding on a KV cache; of equal logits the lowest id wins.
  //
  //   prompt          at least one token; prompt.size() + max_new_tokens <= max_length()
  //   stop_ids        decoding ends after any of these (the id is kept as the last one)
  //   stop(ids)       asked after each new token with all new tokens so far; true ends decoding
  //
  // Throws UsageError if the sizes do not hold, NumericRefusal on a non-finite logit.
  virtual Generation generate_greedy(std::span<const TokenId> prompt, std::int64_t max_new_tokens,
                                     std::span<const TokenId> stop_ids,
                                     const std::function<bool(std::span<const TokenId>)>& stop) = 0;
};

}  // namespace attar
