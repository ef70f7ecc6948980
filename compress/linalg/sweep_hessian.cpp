#include "compress/linalg/sweep_hessian.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/errors.h"

namespace attar::linalg {
namespace {

void check_hessian(const at::Tensor& hessian, double damping, std::string_view where) {
  require<UsageError>(hessian.dim() == 2 && hessian.size(0) == hessian.size(1) &&
                          hessian.scalar_type() == at::kDouble,
                      where, "the Hessian must be square and float64, got ", hessian.sizes(),
                      " of ", c10::toString(hessian.scalar_type()),
                      "; use the statistics of this layer's input");
  require<UsageError>(damping >= 0 && std::isfinite(damping), where,
                      "damping must not be negative, got ", damping);
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

}  // namespace

double SweepHessian::damped_entry(std::int64_t column) const {
  const double entry = diagonal[static_cast<std::size_t>(column)];
  return (entry > 0 ? entry : mean_diagonal) + inverse.damping * mean_diagonal;
}

at::Tensor SweepHessian::damped() const {
  at::Tensor copy = values.clone();
  for (std::int64_t j = 0; j < columns(); ++j) {
    copy.data_ptr<double>()[j * (columns() + 1)] = damped_entry(j);
  }
  return copy;
}

SweepHessian prepare_hessian(const at::Tensor& hessian, bool act_order, double damping,
                             std::string_view where) {
  SweepHessian prepared;
  prepared.values = hessian.contiguous();
  check_hessian(prepared.values, damping, where);
  prepared.diagonal = diagonal_of(prepared.values);
  prepared.mean_diagonal = mean_of(prepared.diagonal);
  prepared.order = processing_order(prepared.diagonal, act_order);
  prepared.inverse = damped_inverse(prepared.values, prepared.order, damping);
  return prepared;
}

}  // namespace attar::linalg
