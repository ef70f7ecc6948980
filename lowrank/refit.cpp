#include "lowrank/refit.h"

#include <ATen/TensorOperators.h>

#include "compress/linalg/decomposition.h"

namespace attar {

Factors refit_left(const Factors& factors, const at::Tensor& target, const at::Tensor& gram,
                   double damping) {
  if (factors.right.size(0) == 0) return factors;
  const at::Tensor seen = factors.right.mm(gram);
  const at::Tensor normal = seen.mm(factors.right.t());
  const double lambda = damping * normal.diagonal().mean().item<double>();
  normal.diagonal().add_(lambda);
  const at::Tensor left =
      linalg::solve_right(target.mm(factors.right.t()) + lambda * factors.left, normal);
  return left.defined() ? Factors{left, factors.right} : factors;
}

}  // namespace attar
