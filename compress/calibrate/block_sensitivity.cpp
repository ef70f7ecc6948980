#include "compress/calibrate/block_sensitivity.h"

#include "compress/core/forward.h"

namespace attar {

BlockSensitivity::BlockSensitivity(const Model& model, const at::Tensor& windows,
                                   const RunContext& context)
    : model_(model),
      context_(context),
      rope_(rope_table(model.config(), windows.size(1))),
      entering_(embed(model.embedding(), windows).contiguous()) {
  at::Tensor hidden = entering_.clone();
  run_rest(0, hidden);
  head_.emplace(model, std::move(hidden));
}

void BlockSensitivity::run(const Block& block, at::Tensor& hidden) const {
  const BlockRunner runner(model_.config(), block, rope_);
  for (std::int64_t window = 0; window < hidden.size(0); ++window) {
    context_.check_stop();
    runner.advance(hidden.narrow(0, window, 1));
  }
}

void BlockSensitivity::run_rest(std::int64_t first, at::Tensor& hidden) const {
  for (std::int64_t index = first; index < model_.config().layers; ++index) {
    run(model_.block(index), hidden);
    model_.done_with_block(index);
  }
}

double BlockSensitivity::divergence_with(const Block& block) const {
  at::Tensor hidden = entering_.clone();
  run(block, hidden);
  run_rest(index_ + 1, hidden);
  return head_->mean(hidden, context_);
}

std::int64_t BlockSensitivity::bytes(const ModelConfig& config, std::int64_t tokens) {
  constexpr std::int64_t kLogitRows = 2 * 256;
  return 4 * (config.vocabulary * (config.hidden + kLogitRows) + 3 * tokens * config.hidden);
}

void BlockSensitivity::advance() { run(model_.block(index_++), entering_); }

}  // namespace attar
