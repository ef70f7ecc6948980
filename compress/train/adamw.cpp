#include "compress/train/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace attar {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

// Sum of squares: eight lanes in double over each chunk, chunks in order.
double sum_of_squares(const at::Tensor& t) {
  const float* x = t.const_data_ptr<float>();
  const std::int64_t count = t.numel(), chunks = (count + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<std::size_t>(chunks));
  at::parallel_for(0, chunks, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t chunk = begin; chunk < end; ++chunk) {
      const std::int64_t last = std::min(count, (chunk + 1) * kChunk);
      double lanes[8] = {};
      std::int64_t i = chunk * kChunk;
      for (; i + 8 <= last; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
          lanes[lane] += static_cast<double>(x[i + lane]) * static_cast<double>(x[i + lane]);
        }
      }
      for (int lane = 0; i < last; ++i, ++lane) {
        lanes[lane] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      }
      double sum = 0;
      for (const double lane : lanes) sum += lane;
      sums[static_cast<std::size_t>(chunk)] = sum;
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Everything that an element's update needs, rounded once.
struct Update {
  float gradient_scale, beta1, beta2, rate, shrink, second_correction, epsilon, average;
};

void update(const Parameter& p, const Update& u) {
  float* value = p.value.mutable_data_ptr<float>();
  float* gradient = p.gradient.mutable_data_ptr<float>();
  float* first = p.first.mutable_data_ptr<float>();
  float* second = p.second.mutable_data_ptr<float>();
  float* average = p.average.defined() ? p.average.mutable_data_ptr<float>() : nullptr;
  const float* unit = p.unit.defined() ? p.unit.const_data_ptr<float>() : nullptr;
  const float* keep = p.keep.defined() ? p.keep.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, p.value.numel(), kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float g = gradient[i] * u.gradient_scale;
      gradient[i] = 0;
      first[i] = u.beta1 * first[i] + (1 - u.beta1) * g;
      second[i] = u.beta2 * second[i] + (1 - u.beta2) * g * g;
      const float root = std::sqrt(second[i] * u.second_correction) + u.epsilon;
      const float rate = unit == nullptr ? u.rate : u.rate * unit[i];
      value[i] = u.shrink * value[i] - rate * (first[i] / root);
    }
    if (keep != nullptr) {
      for (std::int64_t i = begin; i < end; ++i) value[i] *= keep[i];
    }
    if (average != nullptr) {
      for (std::int64_t i = begin; i < end; ++i) {
        average[i] = u.average * average[i] + (1 - u.average) * value[i];
      }
    }
  });
}

}  // namespace

double Schedule::at(std::int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double span = static_cast<double>(std::max<std::int64_t>(1, steps - 1 - warmup));
  const double done = std::min(1.0, static_cast<double>(step - warmup) / span);
  return peak * (floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * done)));
}

void prepare(std::vector<Parameter>& parameters, const AdamWConfig& config) {
  for (Parameter& p : parameters) {
    const at::Tensor value = p.value.detach();
    if (!p.gradient.defined()) p.gradient = at::zeros_like(value);
    if (!p.first.defined()) p.first = at::zeros_like(value);
    if (!p.second.defined()) p.second = at::zeros_like(value);
    if (config.average > 0 && !p.average.defined()) p.average = value.clone();
  }
}

double adamw_step(std::vector<Parameter>& parameters, const AdamWConfig& config, double rate,
                  std::int64_t step) {
  double squares = 0;
  for (const Parameter& p : parameters) squares += sum_of_squares(p.gradient);
  const double norm = std::sqrt(squares);
  if (!std::isfinite(norm)) {
    for (const Parameter& p : parameters) p.gradient.zero_();
    return norm;
  }
  const double scale = config.clip > 0 && norm > config.clip ? config.clip / norm : 1.0;
  const auto count = static_cast<double>(step + 1);
  const double first_correction = 1 / (1 - std::pow(config.beta1, count));
  const double second_correction = 1 / (1 - std::pow(config.beta2, count));
  for (const Parameter& p : parameters) {
    const double own = rate * p.rate;
    update(p, {static_cast<float>(scale), static_cast<float>(config.beta1),
               static_cast<float>(config.beta2), static_cast<float>(own * first_correction),
               static_cast<float>(p.decays ? 1 - rate * config.weight_decay : 1.0),
               static_cast<float>(second_correction), static_cast<float>(config.epsilon),
               static_cast<float>(config.average)});
  }
  return norm;
}

}  // namespace attar
