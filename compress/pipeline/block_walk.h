// Two models side by side over the same windows, one block of each in memory at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string_view>
#include <vector>

#include "compress/core/block_runner.h"
#include "compress/core/model.h"
#include "compress/tokenize/tokenizer.h"
#include "eval/divergence.h"

namespace attar {

// Hidden states of one model on their way through its blocks.
class BlockWalk {
 public:
  // ids [N, T] int64, inside of the vocabulary. `model` must outlive the walk.
  BlockWalk(const Model& model, const at::Tensor& ids, CacheType cache = CacheType::kFloat32);

  // Runs all windows through the next block; nothing after the last one.
  void step();

  // After all blocks: the final norm of rows [first, first + count) of the flattened [N * T].
  at::Tensor normed(std::int64_t first, std::int64_t count) const;  // [count, hidden]

 private:
  const Model& model_;
  CacheType cache_;
  RopeTable rope_;
  at::Tensor hidden_;  // [N, T, hidden]
  std::int64_t next_ = 0;
};

// Windows of text, and which tokens of them are to be foretold.
struct ScoredWindows {
  at::Tensor ids;     // [N, T] int64
  at::Tensor counts;  // [N, T] uint8, 1 where foretelling the token counts; undefined: everywhere
};

// Called before each block ("block") and each window of the head ("window"); may throw to stop.
using WalkStep = std::function<void(std::string_view what)>;

// KL(original || changed), both log-likelihoods and agreement at the positions 0 .. T - 2 of every
// window whose next token counts; a window without any is left out. Throws NumericRefusal for a
// logit that is not finite, BadInput for models of different vocabulary; depth and widths may
// differ.
//
// A model whose vocabulary was trimmed reads ids of its own; the original reads the same pieces
// by its numbers, `tokens[id]` (empty: the same vocabulary). Its distribution is taken over the
// kept tokens and made to sum to 1, for KL and likelihood alike, and `outside` has what lay on
// others: a model that lost nothing but rows has KL 0 and the same perplexity. The original by
// itself may cut the text into other pieces, so none of this says what the trimmed tokenizer costs:
// bits a byte do, each model with its own tokenizer (task wikitext).
//
// `cache` is what the changed model reads keys and values as, each position as after reading token
// by token; the original reads float32.
std::vector<eval::WindowDivergence> walk_divergence(const Model& original, const Model& changed,
                                                    const ScoredWindows& text, const WalkStep& step,
                                                    KeptTokens tokens = {},
                                                    CacheType cache = CacheType::kFloat32);

// Throws BadInput unless both have as many tokens.
void require_same_vocabulary(const Model& a, const Model& b);

}  // namespace attar
