#include "lowrank/refit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>

#include "compress/linalg/decomposition.h"

namespace attar {
namespace {

// matrix + lambda I and lambda = damping * mean of the diagonal.
struct Damped {
  at::Tensor matrix;
  double lambda = 0;
};

Damped damp(const at::Tensor& matrix, double damping) {
  const double lambda = damping * matrix.diagonal().mean().item<double>();
  return {matrix + lambda * at::eye(matrix.size(0), at::kDouble), lambda};
}

}  // namespace

at::Tensor corrected_target(const at::Tensor& weight, const at::Tensor& target,
                            const at::Tensor& gram, double damping) {
  const auto [damped, lambda] = damp(gram, damping);
  return linalg::solve_right(target + lambda * weight, damped);
}

Factors refit_left(const Factors& factors, const at::Tensor& target, const at::Tensor& gram,
                   double damping) {
  if (factors.right.size(0) == 0) return factors;
  const at::Tensor seen = factors.right.mm(gram);
  const auto [damped, lambda] = damp(seen.mm(factors.right.t()), damping);
  const at::Tensor left =
      linalg::solve_right(target.mm(factors.right.t()) + lambda * factors.left, damped);
  return left.defined() ? Factors{left, factors.right} : factors;
}

}  // namespace attar
