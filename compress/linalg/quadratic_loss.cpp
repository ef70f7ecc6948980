#include "compress/linalg/quadratic_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include <numeric>

#include "compress/linalg/clones.h"
#include "compress/linalg/product.h"

namespace attar::linalg {

ATTAR_CLONES
double dot(const float* a, const float* b, std::int64_t count) {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += a[j + k] * b[j + k];
  }
  double total = 0;
  for (; j < count; ++j) total += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  for (const float lane : lanes) total += static_cast<double>(lane);
  return total;
}

at::Tensor row_losses(const at::Tensor& weight, const at::Tensor& approximation,
                      const at::Tensor& hessian) {
  if (hessian.scalar_type() == at::kDouble) {
    const at::Tensor wide = approximation.to(at::kDouble) - weight.to(at::kDouble);
    return at::sum(at::mm(wide, hessian) * wide, 1);
  }
  const std::int64_t columns = weight.size(1);
  const at::Tensor change = (approximation - weight).contiguous();
  const at::Tensor product = linalg::product(change, hessian);  // symmetric
  at::Tensor losses = at::empty({weight.size(0)}, at::kDouble);
  for (std::int64_t r = 0; r < weight.size(0); ++r) {
    losses.data_ptr<double>()[r] = dot(change.const_data_ptr<float>() + r * columns,
                                       product.const_data_ptr<float>() + r * columns, columns);
  }
  return losses;
}

at::Tensor loss_hessian(const at::Tensor& hessian, double largest) {
  const double loudest = hessian.diagonal().max().item<double>();
  const bool plain =
      largest < 1e9 && (largest > 1e-9 || largest == 0) && loudest < 1e25 && loudest > 1e-20;
  return plain ? hessian.to(at::kFloat) : hessian.clone();
}

double total(const at::Tensor& values) {
  const at::Tensor rows = values.dim() > 1 ? at::sum(values, {-1}, false, at::kDouble) : values;
  const at::Tensor sums = rows.to(at::kDouble).contiguous();
  const auto* data = sums.const_data_ptr<double>();
  return std::accumulate(data, data + sums.numel(), 0.0);
}

double hessian_loss(const at::Tensor& weight, const at::Tensor& approximation,
                    const at::Tensor& hessian) {
  return total(row_losses(weight, approximation, hessian.to(at::kFloat)));
}

}  // namespace attar::linalg
