// The weight that gives the dense output from inputs that came through changed layers: what
// whoever rounds, prunes or factorizes a layer may aim at in place of the weight itself
// (ALGOS 1.3).
#pragma once

#include <ATen/core/Tensor.h>

namespace attar::linalg {

// Minimises |W X_dense - W' X|^2 + lambda |W' - weight|^2 with lambda = damping * mean(diag gram).
// It is `weight` itself when X is X_dense.
//   weight  [m, n] double, what is drawn towards
//   target  [m, n] double, W X_dense X^T for the unchanged W (cross_gram.h)
//   gram    [n, n] double, X X^T
// Undefined when the damped gram is not positive definite.
at::Tensor corrected_target(const at::Tensor& weight, const at::Tensor& target,
                            const at::Tensor& gram, double damping);

}  // namespace attar::linalg
