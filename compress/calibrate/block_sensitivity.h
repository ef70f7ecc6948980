// What a model's predictions lose when one of its blocks is another: the sensitivity by which a
// budget is shared out over the blocks.
#pragma once

#include <optional>

#include "compress/calibrate/head_divergence.h"
#include "compress/core/block_runner.h"
#include "compress/core/model.h"
#include "compress/core/pass.h"

namespace attar {

class BlockSensitivity {
 public:
  //   windows  [N, T] int64: text
  BlockSensitivity(const Model& model, const at::Tensor& windows, const RunContext& context);

  // Mean KL(model || model with `block` in place of the block in turn), nats a token. It may be
  // narrower than that one. One forward pass from there on.
  double divergence_with(const Block& block) const;

  // Memory beside the model's blocks, for so many tokens of text.
  static std::int64_t bytes(const ModelConfig& config, std::int64_t tokens);

  // The next block is in turn; the first is at the start.
  void advance();

 private:
  // Runs `block` over hidden states [N, T, hidden] in place.
  void run(const Block& block, at::Tensor& hidden) const;
  // And the model's own blocks from `first` on.
  void run_rest(std::int64_t first, at::Tensor& hidden) const;

  const Model& model_;
  const RunContext& context_;
  RopeTable rope_;
  at::Tensor entering_;  // [N, T, hidden], of the block in turn
  std::int64_t index_ = 0;
  std::optional<HeadDivergence> head_;
};

}  // namespace attar
