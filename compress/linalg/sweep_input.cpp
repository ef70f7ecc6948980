#include "compress/linalg/sweep_input.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "compress/linalg/kept_refit.h"
#include "compress/linalg/product.h"
#include "compress/linalg/quadratic_loss.h"

namespace attar::linalg {
namespace {

double squared_length(const at::Tensor& matrix) {
  return matrix.square().sum(1, false, at::kDouble).sum().item<double>();
}

}  // namespace

SweepInput::SweepInput(const at::Tensor& gram, CrossGram* cross, const SweepInputOptions& options,
                       std::string_view where)
    : share_(options.towards_dense) {
  if (cross != nullptr) {
    lost_ = cross->gram.sub_(gram).to(at::kFloat);
    cross->gram = at::Tensor();  // one gives its memory back before the other takes some
    if (options.follow && cross->residual.defined()) residual_ = cross->residual.to(at::kFloat);
    cross->residual = at::Tensor();
  }
  hessian_ = prepare_hessian(gram, options.act_order, options.damping, where);
}

at::Tensor SweepInput::towards_dense(const at::Tensor& original) const {
  constexpr double kFar = 0.3;
  if (!hessian_.inverse.ok()) return original;
  // (H + d I)^-1 = U^T U, so two triangular products.
  const at::Tensor& upper = hessian_.inverse.upper;
  const at::Tensor order = at::tensor(hessian_.order, at::kLong);
  at::Tensor right = back_product(original, lost_);
  if (residual_.defined()) right.add_(residual_);
  right = right.index_select(1, order);
  const at::Tensor change = back_product(product(right, upper), upper);
  const double moved = squared_length(change), size = squared_length(original);
  if (!(moved > 0) || !std::isfinite(moved)) return original;
  at::Tensor aimed = original.clone(at::MemoryFormat::Contiguous);
  aimed.index_add_(1, order, change, std::min(share_, kFar * std::sqrt(size / moved)));
  return aimed;
}

at::Tensor SweepInput::aim(const at::Tensor& now, const at::Tensor& original,
                           const at::Tensor& keep) const {
  constexpr int kSteps = 40;
  at::Tensor aimed = lost_.defined() ? towards_dense(original) : now;
  if (!keep.defined()) return aimed;
  const at::Tensor start = now * keep;
  if (!lost_.defined() || !hessian_.inverse.ok()) return start;
  const at::Tensor metric =
      loss_hessian(hessian_.damped(),
                   std::max(aimed.abs().max().item<double>(), start.abs().max().item<double>()));
  if (metric.scalar_type() != at::kFloat) return start;
  return refit_kept(aimed, metric, keep.to(at::kByte).contiguous(), start, kSteps);
}

}  // namespace attar::linalg
