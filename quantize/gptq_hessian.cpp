#include "quantize/gptq_hessian.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

void check_hessian(const at::Tensor& hessian, double damping, std::string_view where) {
  require<UsageError>(hessian.dim() == 2 && hessian.size(0) == hessian.size(1) &&
                          hessian.scalar_type() == at::kDouble,
                      where, "the Hessian must be square and float64, got ", hessian.sizes(),
                      " of ", c10::toString(hessian.scalar_type()),
                      "; use the statistics of this layer's input");
  require<UsageError>(damping >= 0 && damping <= 1, where, "damping must be in [0, 1], got ",
                      damping);
  const std::int64_t n = hessian.size(0);
  const double* h = hessian.const_data_ptr<double>();
  for (std::int64_t i = 0; i < n * n; ++i) {
    require<NumericRefusal>(std::isfinite(h[i]), where, "the Hessian holds ", h[i], " at row ",
                            i / n, ", column ", i % n,
                            "; an activation overflowed: look at the layers before");
  }
}

std::vector<std::int64_t> processing_order(const std::vector<double>& diagonal, bool act_order) {
  std::vector<std::int64_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), 0);
  if (act_order) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return diagonal[a] > diagonal[b]; });
  }
  return order;
}

double squared_length(const at::Tensor& matrix) {
  return matrix.square().sum(1, false, at::kDouble).sum().item<double>();
}

}  // namespace

double GptqHessian::damped_entry(std::int64_t column) const {
  const double entry = diagonal[static_cast<std::size_t>(column)];
  return (entry > 0 ? entry : mean_diagonal) + inverse.damping * mean_diagonal;
}

GptqHessian prepare_hessian(const at::Tensor& hessian, bool act_order, double damping,
                            std::string_view where) {
  GptqHessian prepared;
  prepared.values = hessian.contiguous();
  check_hessian(prepared.values, damping, where);
  prepared.diagonal = linalg::diagonal_of(prepared.values);
  prepared.mean_diagonal = linalg::mean_of(prepared.diagonal);
  prepared.order = processing_order(prepared.diagonal, act_order);
  prepared.inverse = linalg::damped_inverse(prepared.values, prepared.order, damping);
  return prepared;
}

at::Tensor lost_inputs(at::Tensor cross, const at::Tensor& gram) {
  return cross.sub_(gram).to(at::kFloat);
}

at::Tensor aim_at_dense(const at::Tensor& weight, const at::Tensor& lost,
                        const GptqHessian& hessian, double share) {
  constexpr double kFar = 0.3;
  if (!hessian.inverse.ok()) return weight;
  // (H + d I)^-1 = U^T U, so two triangular products.
  const at::Tensor& upper = hessian.inverse.upper;
  const at::Tensor order = at::tensor(hessian.order, at::kLong);
  const at::Tensor right = linalg::back_product(weight, lost).index_select(1, order);
  const at::Tensor change = linalg::back_product(linalg::product(right, upper), upper);
  const double moved = squared_length(change), size = squared_length(weight);
  if (!(moved > 0) || !std::isfinite(moved)) return weight;
  share = std::min(share, kFar * std::sqrt(size / moved));
  at::Tensor aimed = weight.clone(at::MemoryFormat::Contiguous);
  aimed.index_add_(1, order, change, share);
  return aimed;
}

}  // namespace attar
