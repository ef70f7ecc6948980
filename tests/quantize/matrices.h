// Weights and Hessians that look like a layer's.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>

#include <cmath>
#include <cstdint>
#include <random>

#include "compress/core/grid.h"

namespace attar {

// Standard normal values, the same for the same seed on every machine: [rows, columns] float32.
inline at::Tensor normal(std::int64_t rows, std::int64_t columns, unsigned seed) {
  std::mt19937 bits(seed);
  at::Tensor values = at::arange(rows * columns, at::kFloat);
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    double sum = -6;  // twelve uniforms: near enough to a normal
    for (int k = 0; k < 12; ++k) sum += static_cast<double>(bits()) / 4294967296.0;
    values.data_ptr<float>()[i] = static_cast<float>(sum);
  }
  return values.reshape({rows, columns});
}

// sum of x x^T of inputs with strong correlations and a few loud channels: [n, n] double.
inline at::Tensor correlated_hessian(std::int64_t n, unsigned seed) {
  at::Tensor x = normal(6 * n, n, seed).to(at::kDouble);
  const at::Tensor common = normal(6 * n, 3, seed + 1).to(at::kDouble);
  x = x * 0.5 + common.mm(normal(3, n, seed + 2).to(at::kDouble));
  x.select(1, n / 3).mul_(8.0);
  return x.t().mm(x);
}

inline at::Tensor values_of(const QuantizedWeight& weight) {
  return dequantize(weight.codes, {weight.scheme, weight.scale, weight.zero});
}

inline bool same_weight(const QuantizedWeight& a, const QuantizedWeight& b) {
  return a.codes.equal(b.codes) && a.scale.equal(b.scale) && a.zero.defined() == b.zero.defined() &&
         (!a.zero.defined() || a.zero.equal(b.zero));
}

inline QuantScheme scheme_of(int bits, std::int64_t group,
                             ZeroPoint zero_point = ZeroPoint::kInteger,
                             at::ScalarType type = at::kHalf) {
  return {bits, group, zero_point, type};
}

}  // namespace attar
