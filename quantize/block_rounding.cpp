#include "quantize/block_rounding.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "compress/core/allocator.h"
#include "compress/core/forward.h"
#include "compress/core/group_search.h"
#include "compress/core/levels.h"
#include "compress/core/quantized_linear.h"
#include "compress/core/random.h"
#include "compress/train/adamw.h"
#include "quantize/tune.h"

namespace attar {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
constexpr std::int64_t kTogether = 1024;  // tokens whose activations are held at once

const float* floats(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<float>() : nullptr;
}

// body(row, first, last, group) for every group of every row: weights [first, last) of the layer.
template <class Body>
void for_groups(const QuantizedWeight& weight, const Body& body) {
  const std::int64_t rows = weight.codes.size(0), columns = weight.codes.size(1);
  const std::int64_t groups = weight.scale.size(1), width = columns / groups;
  at::parallel_for(0, rows, 1 + (1 << 14) / columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin * groups; g < end * groups; ++g) body(g, g * width, width);
  });
}

// What the codes of a grid stand for, in the order of their values.
struct CodeRow {
  std::vector<float> level;        // ascending; empty: evenly spaced, the number is the code
  std::vector<std::uint8_t> code;  // of each level
  std::vector<int> number;         // [256]: of each code

  int count(const QuantScheme& scheme) const {
    return level.empty() ? scheme.levels() : static_cast<int>(level.size());
  }
  void add(float value, int coded) {
    level.push_back(value);
    code.push_back(static_cast<std::uint8_t>(coded));
  }
};

CodeRow code_row(const QuantScheme& scheme) {
  CodeRow row;
  if (scheme.table()) {
    for (const std::int8_t value : kernels::kTable16) row.add(value, 128 + value);
  } else if (const Levels* levels = levels_of(scheme.block)) {
    levels->for_ascending([&](float value, std::uint8_t code) { row.add(value, code); });
  }
  if (row.level.empty()) return row;
  // -0 is no level of its own.
  const auto zero = std::find(row.level.begin(), row.level.end(), 0.0f) - row.level.begin();
  row.number.assign(256, scheme.table() ? 0 : static_cast<int>(zero));
  for (std::size_t i = 0; i < row.code.size(); ++i) row.number[row.code[i]] = static_cast<int>(i);
  return row;
}

// A layer whose rounding learns: parameters by their numbers, and what a step makes of them.
class LearningLayer {
 public:
  LearningLayer(Role role, const QuantizedWeight& start, const Weight& plain, bool scales,
                std::vector<Parameter>& parameters)
      : role_(role),
        codes_(start),
        row_(code_row(start.scheme)),
        top_(static_cast<float>(row_.count(start.scheme) - 1)),
        kept_(start.scheme.holds_zero() ? kept_positions(plain) : at::Tensor()),
        free_scale_(scales && (start.scheme.block == BlockGrid::kNone ||
                               start.scheme.block == BlockGrid::kIq4Nl)) {
    codes_.codes = start.codes.clone();
    if (kept_.defined()) kept_ = kept_.to(at::kByte).contiguous();
    values_ = at::empty(start.codes.sizes(), at::kFloat).requires_grad_(true);
    place_ = add(parameters, place_of(start, dense(plain)), {});
    if (!free_scale_) return;
    const at::Tensor unit = start.scale.abs();
    scale_ = add(parameters, start.scale.clone(), unit);
    if (start.scheme.zero_point == ZeroPoint::kMinimum) {
      minimum_ = add(parameters, start.zero.clone(), unit);
    }
  }

  Role role() const { return role_; }
  const at::Tensor& values() const { return values_; }

  // Codes and values of the parameters as they are.
  void write(const std::vector<Parameter>& parameters) {
    if (free_scale_) codes_.scale = parameters[scale_].value.detach();
    if (minimum_ != kNone) codes_.zero = parameters[minimum_].value.detach();
    const float* place = floats(parameters[place_].value);
    const float* scale = floats(codes_.scale);
    const float* zero = floats(codes_.zero);
    const ZeroPoint kind = codes_.scheme.zero_point;
    auto* codes = codes_.codes.mutable_data_ptr<std::uint8_t>();
    auto* values = values_.mutable_data_ptr<float>();
    for_groups(codes_, [&](std::int64_t g, std::int64_t first, std::int64_t count) {
      const GroupGrid grid{scale[g], zero != nullptr ? zero[g] : (top_ + 1) / 2};
      for (std::int64_t i = first; i < first + count; ++i) {
        const float number = round_even(clamped(place[i], 0.0f, top_));
        if (row_.level.empty()) {
          codes[i] = static_cast<std::uint8_t>(number);
          values[i] = value_of(number, grid, kind);
        } else {
          const auto at = static_cast<std::size_t>(number);
          codes[i] = row_.code[at];
          values[i] = scale[g] * row_.level[at];
        }
      }
    });
  }

  // Adds the gradient of the values, `gradient` [O, I], to those of the parameters.
  void add_gradient(at::Tensor gradient, std::vector<Parameter>& parameters) const {
    if (kept_.defined()) gradient = gradient * kept_;
    if (free_scale_) {
      const GridGradient grid = grid_gradient(gradient, codes_);
      const at::Tensor& unit = parameters[scale_].unit;
      parameters[scale_].gradient.add_(grid.scale * unit);
      if (minimum_ != kNone) parameters[minimum_].gradient.add_(grid.minimum * unit);
    }
    const float* place = floats(parameters[place_].value);
    const float* scale = floats(codes_.scale);
    const float* from = floats(gradient);
    float* to = parameters[place_].gradient.mutable_data_ptr<float>();
    const auto* codes = codes_.codes.const_data_ptr<std::uint8_t>();
    for_groups(codes_, [&](std::int64_t g, std::int64_t first, std::int64_t count) {
      for (std::int64_t i = first; i < first + count; ++i) {
        // Beyond the last code there is nothing to be had further out.
        const bool inside = place[i] > -0.5f && place[i] < top_ + 0.5f;
        to[i] += inside ? from[i] * scale[g] * step_at(codes[i]) : 0.0f;
      }
    });
  }

  // As the file will hold it: scales and minima rounded, codes as they are.
  QuantizedWeight settled() const {
    QuantizedWeight weight = codes_;
    weight.codes = codes_.codes.clone();
    if (free_scale_) weight.scale = rounded(codes_.scale, round_scale);
    if (minimum_ != kNone) weight.zero = rounded(codes_.zero, round_to);
    return weight;
  }

 private:
  static std::size_t add(std::vector<Parameter>& parameters, const at::Tensor& value,
                         const at::Tensor& unit) {
    parameters.push_back({.value = value.contiguous(), .decays = false, .unit = unit});
    return parameters.size() - 1;
  }

  // How far apart levels are around a code, in scales.
  float step_at(std::uint8_t code) const {
    if (row_.level.empty()) return 1;
    const auto at = static_cast<std::size_t>(row_.number[code]);
    const std::size_t low = at == 0 ? 0 : at - 1, high = std::min(at + 1, row_.level.size() - 1);
    return (row_.level[high] - row_.level[low]) / static_cast<float>(high - low);
  }

  // Between the numbers of the levels on both sides of x scales, further on beyond the last.
  float place_in_row(float x) const {
    const auto& level = row_.level;
    const auto above = std::upper_bound(level.begin() + 1, level.end() - 1, x);
    const float high = *above, low = *(above - 1);
    return static_cast<float>(above - level.begin() - 1) + (x - low) / (high - low);
  }

  // Where the plain weight lies between the codes, but within the reach of its code.
  at::Tensor place_of(const QuantizedWeight& weight, const at::Tensor& plain) const {
    constexpr float kReach = 0.49f;
    const at::Tensor values = plain.contiguous();
    at::Tensor place = at::empty(values.sizes(), at::kFloat);
    const float* from = floats(values);
    const float* scale = floats(weight.scale);
    const float* zero = floats(weight.zero);
    const auto* codes = weight.codes.const_data_ptr<std::uint8_t>();
    const bool even = row_.level.empty();
    const bool minimum = weight.scheme.zero_point == ZeroPoint::kMinimum;
    float* to = place.mutable_data_ptr<float>();
    for_groups(weight, [&](std::int64_t g, std::int64_t first, std::int64_t count) {
      const float offset = zero != nullptr ? zero[g] : (top_ + 1) / 2;
      for (std::int64_t i = first; i < first + count; ++i) {
        const auto number = static_cast<float>(even ? codes[i] : row_.number[codes[i]]);
        const float wish = !even     ? place_in_row(from[i] / scale[g])
                           : minimum ? (from[i] - offset) / scale[g]
                                     : from[i] / scale[g] + offset;
        to[i] = std::isfinite(wish) ? number + clamped(wish - number, -kReach, kReach) : number;
      }
    });
    return place;
  }

  at::Tensor rounded(const at::Tensor& values, float (*round)(float, at::ScalarType)) const {
    at::Tensor result = values.clone();
    auto* out = result.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < result.numel(); ++i) {
      if (out[i] != 0) out[i] = round(out[i], codes_.scheme.scale_type);
    }
    return result;
  }

  Role role_;
  QuantizedWeight codes_;  // as they are
  CodeRow row_;
  float top_;        // the number of the last level
  at::Tensor kept_;  // [O, I] uint8: of a mask; undefined: all
  bool free_scale_;
  at::Tensor values_;  // [O, I], a leaf
  std::size_t place_ = kNone, scale_ = kNone, minimum_ = kNone;
};

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
                             const BlockEnds& ends, const BlockRoundingOptions& options,
                             const RunContext& context) {
  const KeepLargeBlocks kept;
  BlockRounding result;
  result.block = rounded;
  std::vector<Parameter> parameters;
  std::vector<LearningLayer> layers;
  Block block = rounded;
  std::vector<at::Tensor> values;
  for (const Role role : kRoles) {
    const auto* codes = std::get_if<QuantizedWeight>(&rounded[role].weight);
    if (codes == nullptr || std::holds_alternative<QuantizedWeight>(plain[role].weight)) continue;
    LearningLayer& layer =
        layers.emplace_back(role, *codes, plain[role].weight, options.scales, parameters);
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
    for (LearningLayer& layer : layers) layer.write(parameters);
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
  for (LearningLayer& layer : layers) {
    layer.write(parameters);
    const QuantizedWeight weight = layer.settled();
    const auto& old = std::get<QuantizedWeight>(rounded[layer.role()].weight);
    result.changed += weight.codes.ne(old.codes).sum().item<std::int64_t>();
    learnt[layer.role()].weight = weight;
  }
  result.after = learner.error_of(learnt, judge) / size;
  result.kept_start = !(result.after < result.before);
  if (!result.kept_start) result.block = std::move(learnt);
  return result;
}

}  // namespace attar
