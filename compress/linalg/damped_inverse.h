// The factor that every compensating sweep stands on: of (H + d I)^-1, with d climbing until H + d
// I is positive definite.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace attar::linalg {

struct DampedInverse {
  at::Tensor upper;    // [n, n] float32: U with (H + d I)^-1 = U^T U, in `order`; or undefined
  double damping = 0;  // what was added, as a share of mean(diag H)
  std::vector<std::string> failures;  // one sentence for each damping that was not enough

  bool ok() const { return upper.defined(); }
};

// The diagonal of [n, n] double, and its mean.
std::vector<double> diagonal_of(const at::Tensor& hessian);
double mean_of(const std::vector<double>& values);

// H with rows and columns in `order`, `damp` on its diagonal, and a diagonal of `dead_value` where
// it is not positive: [n, n] double.
at::Tensor damped_copy(const at::Tensor& hessian, const std::vector<std::int64_t>& order,
                       double damp, double dead_value);

// Tries `damping`, then ten times as much, up to five times. A column that was never active counts
// as if it had the mean of the diagonal.
//   hessian  [n, n] double, contiguous, symmetric, of finite numbers
//   order    order[k]: the column that comes k-th
// Nothing is factored (undefined `upper`, one failure) when the whole diagonal is 0.
DampedInverse damped_inverse(const at::Tensor& hessian, const std::vector<std::int64_t>& order,
                             double damping);

}  // namespace attar::linalg
