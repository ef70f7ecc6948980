#include "quantize/block_rounding.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "compress/core/allocator.h"
#include "compress/core/forward.h"
#include "compress/core/random.h"
#include "compress/train/adamw.h"
#include "compress/train/learnt_codes.h"
#include "quantize/tune.h"

namespace attar {
namespace {

constexpr std::int64_t kTogether = 1024;  // tokens whose activations are held at once

const float* floats(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<float>() : nullptr;
}

// The squared error of outputs [n, T, hidden] and, in place of `outputs`, its gradient times
// `scale`. `weights` [T] or undefined. Added up token after token.
double error_and_gradient(at::Tensor outputs, const at::Tensor& targets, const at::Tensor& weights,
                          double scale) {
  const std::int64_t tokens = outputs.size(0) * outputs.size(1), length = outputs.size(1);
  const std::int64_t hidden = outputs.size(2);
  std::vector<double> errors(static_cast<std::size_t>(tokens));
  float* out = outputs.mutable_data_ptr<float>();
  const float* wanted = floats(targets);
  const float* weight = floats(weights);
  at::parallel_for(0, tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float w = weight != nullptr ? weight[t % length] : 1.0f;
      const float factor = static_cast<float>(2 * scale) * w;
      double sum = 0;
      for (std::int64_t c = t * hidden; c < (t + 1) * hidden; ++c) {
        const float difference = out[c] - wanted[c];
        sum += static_cast<double>(difference) * static_cast<double>(difference);
        out[c] = factor * difference;
      }
      errors[static_cast<std::size_t>(t)] = sum * static_cast<double>(w);
    }
  });
  double total = 0;
  for (const double error : errors) total += error;
  return total;
}

// One block and the windows that it learns from.
class Learner {
 public:
  Learner(const ModelConfig& config, const BlockEnds& ends)
      : config_(config), ends_(ends), rope_(rope_table(config, ends.inputs.size(1))) {}

  // Summed over these windows; NaN where outputs are not finite.
  double error_of(const Block& block, const std::vector<std::int64_t>& windows) const {
    const at::NoGradGuard none;
    double total = 0;
    for (const std::int64_t w : windows) {
      const at::Tensor x = ends_.inputs.narrow(0, w, 1);
      total += error_and_gradient(block_forward(config_, block, rope_, x).clone(),
                                  ends_.targets.narrow(0, w, 1).contiguous(), ends_.weights, 0);
    }
    return total;
  }

  // What the block adds to its inputs, squared and weighted, over these windows.
  double size_of(const std::vector<std::int64_t>& windows) const {
    double total = 0;
    for (const std::int64_t w : windows) {
      total += error_and_gradient(ends_.inputs.narrow(0, w, 1).clone(),
                                  ends_.targets.narrow(0, w, 1).contiguous(), ends_.weights, 0);
    }
    return total;
  }

  // Adds the gradients of scale x the error of these windows, [O, I] each, in the order of
  // `values`, to `totals`.
  void add_gradients(const Block& block, const std::vector<at::Tensor>& values,
                     const at::Tensor& windows, double scale,
                     std::vector<at::Tensor>& totals) const {
    at::Tensor output = block_forward(config_, block, rope_, ends_.inputs.index_select(0, windows));
    at::Tensor back = output.detach().clone();
    error_and_gradient(back, ends_.targets.index_select(0, windows), ends_.weights, scale);
    const auto found = torch::autograd::grad({output}, values, {back});
    const at::NoGradGuard none;
    for (std::size_t i = 0; i < found.size(); ++i) {
      totals[i] = totals[i].defined() ? totals[i].add_(found[i]) : found[i].contiguous();
    }
  }

  std::int64_t length() const { return ends_.inputs.size(1); }

 private:
  const ModelConfig& config_;
  const BlockEnds& ends_;
  RopeTable rope_;
};

}  // namespace

BlockRounding learn_rounding(const ModelConfig& config, const Block& rounded, const Block& plain,
                             std::span<const at::Tensor, kRoles.size()> kept, const BlockEnds& ends,
                             const BlockRoundingOptions& options, const RunContext& context) {
  const KeepLargeBlocks large;
  BlockRounding result;
  result.block = rounded;
  std::vector<Parameter> parameters;
  std::vector<LearntCodes> layers;
  Block block = rounded;
  std::vector<at::Tensor> values;
  for (const Role role : roles_of(rounded)) {
    const auto* codes = std::get_if<QuantizedWeight>(&rounded[role].weight);
    if (codes == nullptr || std::holds_alternative<QuantizedWeight>(plain[role].weight)) continue;
    const LearntCodes& layer = layers.emplace_back(
        *codes, dense(plain[role].weight), kept[index_of(role)], options.scales, parameters);
    block[role].weight = DenseWeight{layer.values()};
    values.push_back(layer.values());
    result.learnt.push_back(role);
    result.codes += codes->codes.numel();
  }
  if (layers.empty()) return result;

  const std::vector<bool> judges = held_out_windows(ends.inputs.size(0), options.held_out);
  std::vector<std::int64_t> learn, judge;
  for (std::size_t i = 0; i < judges.size(); ++i) {
    (judges[i] ? judge : learn).push_back(static_cast<std::int64_t>(i));
  }
  const Learner learner(config, ends);
  const double start = learner.error_of(rounded, judge), size = learner.size_of(judge);
  result.before = result.after = start / size;
  if (!(start > 0) || !std::isfinite(result.before)) {
    result.kept_start = true;
    return result;
  }

  const AdamWConfig adam{.beta2 = 0.99, .epsilon = 1e-12, .weight_decay = 0, .clip = 0};
  prepare(parameters, adam);
  const Schedule schedule{options.learning_rate, 0.0, options.steps / 10, options.steps};
  // Shares of the error at the start, so that gradients have one size in every block.
  const double scale =
      static_cast<double>(judge.size()) / start / static_cast<double>(options.batch);
  const CounterRandom random(context.seed, "autoround windows");
  const std::int64_t together = std::max<std::int64_t>(1, kTogether / learner.length());
  for (std::int64_t step = 0; step < options.steps; ++step) {
    context.check_stop();
    for (LearntCodes& layer : layers) layer.write(parameters);
    std::vector<at::Tensor> totals(values.size());
    for (std::int64_t first = 0; first < options.batch; first += together) {
      std::vector<std::int64_t> drawn;
      for (std::int64_t i = first; i < std::min(options.batch, first + together); ++i) {
        const auto number = static_cast<std::uint64_t>(step * options.batch + i);
        drawn.push_back(learn[static_cast<std::size_t>(random.below(number, learn.size()))]);
      }
      learner.add_gradients(block, values, at::tensor(drawn, at::kLong), scale, totals);
    }
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i].add_gradient(totals[i], parameters);
    }
    if (!std::isfinite(adamw_step(parameters, adam, schedule.at(step), step))) {
      ++result.nonfinite_steps;
    }
  }

  Block learnt = rounded;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    Weight& weight = learnt[result.learnt[i]].weight;
    const at::Tensor before = std::get<QuantizedWeight>(weight).codes;
    const QuantizedWeight found = layers[i].settled(parameters, /*averaged=*/false);
    result.changed += found.codes.ne(before).sum().item<std::int64_t>();
    weight = found;
  }
  result.after = learner.error_of(learnt, judge) / size;
  result.kept_start = !(result.after < result.before);
  if (!result.kept_start) result.block = std::move(learnt);
  return result;
}

}  // namespace attar
