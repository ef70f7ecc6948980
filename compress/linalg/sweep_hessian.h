// What a compensating sweep (GPTQ, SparseGPT) works out once for all layers that read one input: q,
// k and v; gate and up.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "compress/linalg/damped_inverse.h"

namespace attar::linalg {

struct SweepHessian {
  at::Tensor values;             // [I, I] double, contiguous, symmetric
  std::vector<double> diagonal;  // of `values`
  double mean_diagonal = 0;
  std::vector<std::int64_t> order;  // order[k]: the column that comes k-th
  DampedInverse inverse;            // in `order`; not ok() when no damping was enough

  std::int64_t columns() const { return values.size(0); }
  // The diagonal that was factored: a dead input has the mean in place of 0.
  double damped_entry(std::int64_t column) const;
  // `values` with that diagonal.
  at::Tensor damped() const;
};

// hessian [I, I] double: sum of x x^T over calibration tokens (any scale). `act_order`: columns of
// large diag H first. O(I^3) time. Throws UsageError on another shape or type, NumericRefusal on a
// NaN or an infinity (with its place).
SweepHessian prepare_hessian(const at::Tensor& hessian, bool act_order, double damping,
                             std::string_view where);

}  // namespace attar::linalg
