#include "prune/wanda.h"

#include <ATen/TensorOperators.h>

#include "compress/core/errors.h"

namespace attar {

at::Tensor wanda_scores(const at::Tensor& weight, const at::Tensor& hessian) {
  require<UsageError>(weight.dim() == 2 && weight.scalar_type() == at::kFloat &&
                          hessian.dim() == 2 && hessian.scalar_type() == at::kDouble &&
                          hessian.size(0) == weight.size(1) && hessian.size(1) == weight.size(1),
                      "wanda",
                      "wants a weight float32 [outputs, inputs] and a Hessian float64 "
                      "[inputs, inputs], got ",
                      weight.sizes(), " and ", hessian.sizes());
  const at::Tensor norms = hessian.diagonal().clamp_min(0).sqrt();
  return (weight.abs().to(at::kDouble) * norms).to(at::kFloat);
}

at::Tensor wanda_mask(const at::Tensor& weight, const at::Tensor& hessian,
                      const SparsityPattern& pattern) {
  return keep_best(wanda_scores(weight, hessian), pattern, CutScope::kRow);
}

}  // namespace attar
