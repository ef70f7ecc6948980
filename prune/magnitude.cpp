#include "prune/magnitude.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>

namespace attar {

at::Tensor magnitude_mask(const at::Tensor& weight, const SparsityPattern& pattern) {
  return keep_best(at::abs(weight), pattern, CutScope::kMatrix);
}

}  // namespace attar
