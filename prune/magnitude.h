// Magnitude pruning: the smallest weights of a layer go. Needs no data; the baseline.
#pragma once

#include "prune/sparsity.h"

namespace attar {

// What stays, [O, I] bool: over the whole matrix, or in each group of N:M.
//   weight  [O, I] float32
at::Tensor magnitude_mask(const at::Tensor& weight, const SparsityPattern& pattern);

}  // namespace attar
