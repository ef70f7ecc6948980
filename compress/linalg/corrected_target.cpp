#include "compress/linalg/corrected_target.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include "compress/linalg/decomposition.h"

namespace attar::linalg {
at::Tensor dense_target(const at::Tensor& weight, const CrossGram& cross) {
  at::Tensor target = weight.mm(cross.gram);
  if (cross.residual.defined()) target.add_(cross.residual);
  return target;
}

at::Tensor corrected_target(const at::Tensor& weight, const at::Tensor& target,
                            const at::Tensor& gram, double damping) {
  const double lambda = damping * gram.diagonal().mean().item<double>();
  at::Tensor damped = gram.clone(at::MemoryFormat::Contiguous);
  damped.diagonal().add_(lambda);
  const RightSolver solver(std::move(damped));
  return solver.ok() ? solver.solve(target + lambda * weight) : at::Tensor();
}

}  // namespace attar::linalg
