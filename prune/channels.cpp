#include "prune/channels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "compress/core/block_runner.h"

namespace attar {
namespace {

// Calls see(norm, x) with what enters each norm, [1, T, hidden], sequence by sequence within a
// norm: `norm` counts attention and MLP norms of all blocks, then the final one.
void walk_norms(const Model& model, const at::Tensor& ids, const RunContext& context,
                const std::function<void(std::size_t norm, const at::Tensor& x,
                                         const at::Tensor& weight)>& see) {
  const ModelConfig& config = model.config();
  const RopeTable rope = rope_table(config, ids.size(1));
  at::Tensor hidden = embed(model.embedding(), ids);
  std::size_t norm = 0;
  for (std::int64_t index = 0; index < config.layers; ++index, norm += 2) {
    const Block block = model.block(index);
    const BlockRunner runner(config, block, rope);
    for (std::int64_t sequence = 0; sequence < hidden.size(0); ++sequence) {
      context.check_stop();
      at::Tensor rows = hidden.narrow(0, sequence, 1);
      if (attends(block)) see(norm, rows, block[Norm::kAttention]);
      const at::Tensor between = runner.attended(rows);
      see(norm + 1, between, block[Norm::kMlp]);
      rows.copy_(runner.add_mlp(between, runner.gated(runner.mlp_input(between))));
    }
    model.done_with_block(index);
  }
  for (std::int64_t sequence = 0; sequence < hidden.size(0); ++sequence) {
    see(norm, hidden.narrow(0, sequence, 1), model.final_norm());
  }
}

}  // namespace

at::Tensor channel_scores(const Model& model, const at::Tensor& ids, const RunContext& context) {
  at::Tensor squares =
      at::zeros({2 * model.config().layers + 1, model.config().hidden}, at::kDouble);
  walk_norms(model, ids, context,
             [&](std::size_t norm, const at::Tensor& x, const at::Tensor& weight) {
               const at::Tensor out = rms_norm(x, weight, model.config().norm_eps);
               squares.select(0, static_cast<std::int64_t>(norm))
                   .add_(out.abs().to(at::kDouble).mean({0, 1}).square());
             });
  return squares.sqrt().sum(0);
}

std::vector<double> norm_ratios(const Model& model, const at::Tensor& ids, const at::Tensor& kept,
                                const RunContext& context) {
  std::vector<double> sums(static_cast<std::size_t>(2 * model.config().layers + 1), 0.0);
  std::vector<double> tokens(sums.size(), 0.0);
  const double eps = model.config().norm_eps;
  walk_norms(model, ids, context, [&](std::size_t norm, const at::Tensor& x, const at::Tensor&) {
    const at::Tensor squares = x.flatten(0, 1).to(at::kDouble).square();
    const at::Tensor all = (squares.mean(1) + eps).sqrt();
    const at::Tensor part = (at::index_select(squares, 1, kept).mean(1) + eps).sqrt();
    const at::Tensor ratio = part / all;
    const auto* values = ratio.const_data_ptr<double>();
    for (std::int64_t t = 0; t < ratio.size(0); ++t) sums[norm] += values[t];
    tokens[norm] += static_cast<double>(ratio.size(0));
  });
  for (std::size_t norm = 0; norm < sums.size(); ++norm) {
    if (tokens[norm] > 0) sums[norm] /= tokens[norm];
  }
  return sums;
}

std::vector<std::int64_t> highest(const at::Tensor& scores, std::int64_t count) {
  const auto* score = scores.const_data_ptr<double>();
  std::vector<std::int64_t> order(static_cast<std::size_t>(scores.size(0)));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return score[a] > score[b]; });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace attar
