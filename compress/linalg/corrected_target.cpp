#include "compress/linalg/corrected_target.h"

#include <ATen/TensorOperators.h>

#include "compress/linalg/decomposition.h"

namespace attar::linalg {

at::Tensor corrected_target(const at::Tensor& weight, const at::Tensor& target,
                            const at::Tensor& gram, double damping) {
  const double lambda = damping * gram.diagonal().mean().item<double>();
  const at::Tensor damped = gram.clone();
  damped.diagonal().add_(lambda);
  return solve_right(target + lambda * weight, damped);
}

}  // namespace attar::linalg
