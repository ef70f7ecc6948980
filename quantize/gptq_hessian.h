// What GPTQ works out once for all layers that read one input (q, k and v; gate and up), and the
// weight that it aims at where the unchanged model's inputs are known.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "compress/linalg/damped_inverse.h"

namespace attar {

struct GptqHessian {
  at::Tensor values;             // [I, I] double, contiguous, symmetric
  std::vector<double> diagonal;  // of `values`
  double mean_diagonal = 0;
  std::vector<std::int64_t> order;  // order[k]: the column that is rounded k-th
  linalg::DampedInverse inverse;    // in `order`; not ok() when no damping was enough

  std::int64_t columns() const { return values.size(0); }
  // The diagonal that was factored: a dead input has the mean in place of 0.
  double damped_entry(std::int64_t column) const;
};

// hessian [I, I] double: sum of x x^T over calibration tokens (any scale). `act_order`: columns of
// large diag H first. O(I^3) time. Throws UsageError on another shape or type, NumericRefusal on a
// NaN or an infinity (with its place).
GptqHessian prepare_hessian(const at::Tensor& hessian, bool act_order, double damping,
                            std::string_view where);

// X_dense X^T - X X^T as float32 [I, I]. `cross`, X_dense X^T [I, I] double, is overwritten.
at::Tensor lost_inputs(at::Tensor cross, const at::Tensor& gram);

// A share of the way from W to the W' that minimises |W X_dense - W' X|^2 + d |W' - W|^2, d the
// damping: W' - W = W (X_dense X^T - X X^T) (X X^T + d I)^-1 (ALGOS 1.3). Never further from W than
// 0.3 of its length: that is where little text says much. W itself where H was not factored.
// GPTAQ (Li et al. 2025, arXiv:2504.02692) walks towards the same minimum column by column; on the
// oracle's example it ends further from it (tests/quantize/golden_test.cpp).
//   weight [O, I] float32,  lost [I, I] of lost_inputs
at::Tensor aim_at_dense(const at::Tensor& weight, const at::Tensor& lost,
                        const GptqHessian& hessian, double share);

}  // namespace attar
