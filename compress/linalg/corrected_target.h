// The weight that gives the dense output from inputs that came through changed layers: what
// whoever rounds, prunes or factorizes a layer may aim at in place of the weight itself
// (Qronos, Zhang et al. 2025, arXiv:2505.11695).
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/linalg/cross_gram.h"

namespace attar::linalg {

// The right side of such an equation, [m, n] double: W X_dense X^T and, where it is known, what the
// residual stream has lost before the layer.
//   weight  W [m, n_dense] double
at::Tensor dense_target(const at::Tensor& weight, const CrossGram& cross);

// Minimises |W X_dense - W' X|^2 + lambda |W' - weight|^2 with lambda = damping * mean(diag gram).
// It is `weight` itself when X is X_dense.
//   weight  [m, n] double, what is drawn towards
//   target  [m, n] double, of dense_target
//   gram    [n, n] double, X X^T
// Undefined when the damped gram is not positive definite.
at::Tensor corrected_target(const at::Tensor& weight, const at::Tensor& target,
                            const at::Tensor& gram, double damping);

}  // namespace attar::linalg
