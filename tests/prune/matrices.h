// Weights and inputs that look like a layer's.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "tests/support/random_model.h"

namespace attar::testing {

// sum of x x^T over 6 n inputs with three strong common causes and one loud channel: [n, n] double.
inline at::Tensor correlated_hessian(std::int64_t n, const std::string& name) {
  at::Tensor x = normal({6 * n, n}, name + ".own", 0.5).to(at::kDouble);
  const at::Tensor causes = normal({6 * n, 3}, name + ".causes").to(at::kDouble);
  x = x + causes.mm(normal({3, n}, name + ".mixing").to(at::kDouble));
  x.select(1, n / 3).mul_(8.0);
  return x.t().mm(x);
}

}  // namespace attar::testing
