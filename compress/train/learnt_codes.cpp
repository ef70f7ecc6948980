#include "compress/train/learnt_codes.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "compress/core/group_rule.h"
#include "compress/core/levels.h"
#include "compress/core/quantized_linear.h"
#include "compress/core/random.h"

namespace attar {
namespace {

const float* floats(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<float>() : nullptr;
}

// body(group, first, count) for every group of every row: weights [first, first + count) of the
// layer.
template <class Body>
void for_groups(const QuantizedWeight& weight, const Body& body) {
  const std::int64_t rows = weight.codes.size(0), columns = weight.codes.size(1);
  const std::int64_t groups = weight.scale.size(1), width = columns / groups;
  at::parallel_for(0, rows, 1 + (1 << 14) / columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin * groups; g < end * groups; ++g) body(g, g * width, width);
  });
}

std::size_t add(std::vector<Parameter>& parameters, std::string name, const at::Tensor& value,
                const at::Tensor& unit, double rate) {
  parameters.push_back({.name = std::move(name),
                        .value = value.contiguous(),
                        .decays = false,
                        .rate = rate,
                        .unit = unit});
  return parameters.size() - 1;
}

const at::Tensor& of(const Parameter& parameter, bool averaged) {
  return averaged && parameter.average.defined() ? parameter.average : parameter.value;
}

}  // namespace

bool scales_learn(const QuantScheme& scheme) {
  return scheme.block == BlockGrid::kNone || scheme.block == BlockGrid::kIq4Nl;
}

at::Tensor as_stored(const at::Tensor& values, at::ScalarType type,
                     float (*round)(float, at::ScalarType)) {
  at::Tensor result = values.detach().clone();
  auto* out = result.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    if (out[i] != 0) out[i] = round(out[i], type);
  }
  return result;
}

LearntCodes::CodeRow LearntCodes::code_row(const QuantScheme& scheme) {
  CodeRow row;
  const auto add = [&row](float value, int coded) {
    row.level.push_back(value);
    row.code.push_back(static_cast<std::uint8_t>(coded));
  };
  if (scheme.table()) {
    for (const std::int8_t value : kernels::kTable16) add(value, 128 + value);
  } else if (const Levels* levels = levels_of(scheme.block)) {
    levels->for_ascending([&](float value, std::uint8_t code) { add(value, code); });
  }
  if (row.level.empty()) return row;
  // -0 is no level of its own.
  const auto zero = std::find(row.level.begin(), row.level.end(), 0.0f) - row.level.begin();
  row.number.assign(256, scheme.table() ? 0 : static_cast<int>(zero));
  for (std::size_t i = 0; i < row.code.size(); ++i) row.number[row.code[i]] = static_cast<int>(i);
  return row;
}

LearntCodes::LearntCodes(const QuantizedWeight& start, const at::Tensor& kept)
    : codes_(start), row_(code_row(start.scheme)) {
  const int count =
      row_.level.empty() ? start.scheme.levels() : static_cast<int>(row_.level.size());
  top_ = static_cast<float>(count - 1);
  codes_.codes = start.codes.clone();
  if (kept.defined() && start.scheme.holds_zero()) kept_ = kept.to(at::kByte).contiguous();
  values_ = at::empty(start.codes.sizes(), at::kFloat).requires_grad_(true);
}

LearntCodes::LearntCodes(const QuantizedWeight& start, const at::Tensor& plain,
                         const at::Tensor& kept, bool scales, std::vector<Parameter>& parameters)
    : LearntCodes(start, kept) {
  const at::Tensor values = plain.contiguous();
  const float* from = floats(values);
  const float* scale = floats(start.scale);
  const float* zero = floats(start.zero);
  const bool minimum = start.scheme.zero_point == ZeroPoint::kMinimum;
  const at::Tensor place = places([&](std::int64_t i, std::int64_t g, float /*number*/) {
    if (!row_.level.empty()) return place_in_row(from[i] / scale[g]);
    const float offset = zero != nullptr ? zero[g] : (top_ + 1) / 2;
    return minimum ? (from[i] - offset) / scale[g] : from[i] / scale[g] + offset;
  });
  join(place, scales, parameters, "", 1);
}

LearntCodes::LearntCodes(const QuantizedWeight& start, bool scales,
                         std::vector<Parameter>& parameters, const std::string& name, double rate,
                         std::uint64_t seed)
    : LearntCodes(start, at::Tensor()) {
  const CounterRandom random(seed, name);
  const at::Tensor place = places([&](std::int64_t i, std::int64_t /*g*/, float number) {
    return number + static_cast<float>(random.uniform(static_cast<std::uint64_t>(i))) - 0.5f;
  });
  join(place, scales, parameters, name, rate);
}

void LearntCodes::join(const at::Tensor& place, bool scales, std::vector<Parameter>& parameters,
                       const std::string& name, double rate) {
  place_ = add(parameters, name + ".codes", place, {}, rate);
  if (!scales || !scales_learn(codes_.scheme)) return;
  const at::Tensor unit = codes_.scale.abs();
  scale_ = add(parameters, name + ".scale", codes_.scale.clone(), unit, 1);
  if (codes_.scheme.zero_point == ZeroPoint::kMinimum) {
    minimum_ = add(parameters, name + ".minimum", codes_.zero.clone(), unit, 1);
  }
}

template <class Wish>
at::Tensor LearntCodes::places(const Wish& wish) const {
  constexpr float kReach = 0.49f;
  at::Tensor place = at::empty(codes_.codes.sizes(), at::kFloat);
  const auto* codes = codes_.codes.const_data_ptr<std::uint8_t>();
  float* to = place.mutable_data_ptr<float>();
  for_groups(codes_, [&](std::int64_t g, std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const auto number = static_cast<float>(row_.level.empty() ? codes[i] : row_.number[codes[i]]);
      const float away = wish(i, g, number) - number;
      to[i] = number + (std::isfinite(away) ? clamped(away, -kReach, kReach) : 0.0f);
    }
  });
  return place;
}

QuantizedWeight LearntCodes::on_grid(const std::vector<Parameter>& parameters,
                                     bool averaged) const {
  QuantizedWeight weight = codes_;
  if (scale_ != kNone) weight.scale = of(parameters[scale_], averaged).detach();
  if (minimum_ != kNone) weight.zero = of(parameters[minimum_], averaged).detach();
  return weight;
}

void LearntCodes::encode(const at::Tensor& place, QuantizedWeight& weight, float* values) const {
  const float* from = floats(place);
  const float* scale = floats(weight.scale);
  const float* zero = floats(weight.zero);
  const ZeroPoint kind = weight.scheme.zero_point;
  auto* codes = weight.codes.mutable_data_ptr<std::uint8_t>();
  for_groups(weight, [&](std::int64_t g, std::int64_t first, std::int64_t count) {
    const GroupGrid grid{scale[g], zero != nullptr ? zero[g] : (top_ + 1) / 2};
    for (std::int64_t i = first; i < first + count; ++i) {
      const float number = round_even(clamped(from[i], 0.0f, top_));
      const bool even = row_.level.empty();
      const auto at = static_cast<std::size_t>(number);
      codes[i] = even ? static_cast<std::uint8_t>(number) : row_.code[at];
      if (values != nullptr) {
        values[i] = even ? value_of(number, grid, kind) : scale[g] * row_.level[at];
      }
    }
  });
}

void LearntCodes::write(const std::vector<Parameter>& parameters) {
  codes_ = on_grid(parameters, /*averaged=*/false);
  encode(parameters[place_].value, codes_, values_.mutable_data_ptr<float>());
}

void LearntCodes::add_gradient(at::Tensor gradient, std::vector<Parameter>& parameters) const {
  if (kept_.defined()) gradient = gradient * kept_;
  gradient = gradient.contiguous();
  if (scale_ != kNone) {
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

QuantizedWeight LearntCodes::settled(const std::vector<Parameter>& parameters,
                                     bool averaged) const {
  QuantizedWeight weight = on_grid(parameters, averaged);
  weight.codes = at::empty(codes_.codes.sizes(), at::kByte);
  encode(of(parameters[place_], averaged), weight, nullptr);
  const at::ScalarType type = weight.scheme.scale_type;
  if (scale_ != kNone) weight.scale = as_stored(weight.scale, type, round_scale);
  if (minimum_ != kNone) weight.zero = as_stored(weight.zero, type, round_to);
  return weight;
}

// How far apart levels are around a code, in scales.
float LearntCodes::step_at(std::uint8_t code) const {
  if (row_.level.empty()) return 1;
  const auto at = static_cast<std::size_t>(row_.number[code]);
  const std::size_t low = at == 0 ? 0 : at - 1, high = std::min(at + 1, row_.level.size() - 1);
  return (row_.level[high] - row_.level[low]) / static_cast<float>(high - low);
}

// Between the numbers of the levels on both sides of x scales, further on beyond the last.
float LearntCodes::place_in_row(float x) const {
  const auto& level = row_.level;
  const auto above = std::upper_bound(level.begin() + 1, level.end() - 1, x);
  const float high = *above, low = *(above - 1);
  return static_cast<float>(above - level.begin() - 1) + (x - low) / (high - low);
}

}  // namespace attar
