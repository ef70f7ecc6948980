// Weights and inputs with the structure of a real layer's: correlated inputs of unequal size.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

#include "tests/support/random_model.h"

namespace attar::testing {

inline at::Tensor weight_of(std::int64_t out, std::int64_t in) {
  return normal({out, in}, "weight").to(at::kDouble);
}

// [in, tokens] double: a few strong directions that all columns share, and noise of its own.
inline at::Tensor inputs_of(std::int64_t in, std::int64_t tokens,
                            std::string_view purpose = "inputs") {
  const std::int64_t shared = std::max<std::int64_t>(1, in / 8);
  const at::Tensor mixing = normal({in, shared}, "mixing").to(at::kDouble);
  const at::Tensor strong = normal({shared, tokens}, std::string(purpose) + ".strong");
  const at::Tensor noise = normal({in, tokens}, std::string(purpose) + ".noise", 0.3);
  return mixing.mm(strong.to(at::kDouble)) + noise.to(at::kDouble);
}

inline double squared(const at::Tensor& values) { return values.square().sum().item<double>(); }

}  // namespace attar::testing
