// Wanda: a weight counts as |w| times the norm of the input that it meets; the lowest of each
// output go, no weight changes (Sun et al. 2023, arXiv:2306.11695).
#pragma once

#include "prune/sparsity.h"

namespace attar {

// |W_ij| * sqrt(H_jj), [O, I] float32.
//   weight   [O, I] float32
//   hessian  [I, I] double: sum of x x^T over calibration tokens (any scale)
at::Tensor wanda_scores(const at::Tensor& weight, const at::Tensor& hessian);

// What stays, [O, I] bool: the same share of every row, or of each group of N:M.
at::Tensor wanda_mask(const at::Tensor& weight, const at::Tensor& hessian,
                      const SparsityPattern& pattern);

}  // namespace attar
