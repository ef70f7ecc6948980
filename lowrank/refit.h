// Closed-form refits whose target is the dense output while the inputs come through layers that
// were changed (Qronos, Zhang et al. 2025, arXiv:2505.11695).
//
// Shapes: X_dense [n', T] are the inputs of the unchanged model, X [n, T] those of the changed one;
// gram = X X^T [n, n]; target = W X_dense X^T [m, n] for the unchanged weight W [m, n']. float64.
#pragma once

#include <ATen/core/Tensor.h>

#include "lowrank/output_pca.h"

namespace attar {

// `factors` with the left one refitted, the right one fixed: minimises
// |W X_dense - left right X|^2 + lambda |left - before|^2, lambda = damping * mean(diag(right gram
// right^T)). Also makes up for a right factor that was rounded. Left as it was when the normal
// matrix is not positive definite (a damping of 0 and inputs that do not span).
Factors refit_left(const Factors& factors, const at::Tensor& target, const at::Tensor& gram,
                   double damping);

}  // namespace attar
