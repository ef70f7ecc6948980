#include "compress/linalg/kept_refit.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cstdint>
#include <vector>

#include "compress/linalg/clones.h"
#include "compress/linalg/product.h"
#include "compress/linalg/quadratic_loss.h"

namespace attar::linalg {
namespace {

// One row of conjugate gradients.
struct Row {
  float* value;
  float* residual;       // (W - V) H where kept, else 0
  float* direction;      // 0 where cut
  const float* product;  // direction H
  const std::uint8_t* keep;
  const float* diagonal;  // of H
  std::int64_t columns;
};

// Turns to the next direction. `size` is |residual|^2 in the metric of the preconditioner, from
// call to call; 0 before the first.
ATTAR_CLONES
void turn(const Row& row, double& size) {
  double now = 0;
  for (std::int64_t j = 0; j < row.columns; ++j) {
    now += static_cast<double>(row.residual[j]) * static_cast<double>(row.residual[j]) /
           static_cast<double>(row.diagonal[j]);
  }
  const float share = size > 0 ? static_cast<float>(now / size) : 0.0f;
  size = now;
  for (std::int64_t j = 0; j < row.columns; ++j) {
    row.direction[j] = row.residual[j] / row.diagonal[j] + share * row.direction[j];
  }
}

// Goes as far as the loss falls.
ATTAR_CLONES
void go(const Row& row, double size) {
  double curvature = 0;
  for (std::int64_t j = 0; j < row.columns; ++j) {
    curvature += static_cast<double>(row.direction[j]) * static_cast<double>(row.product[j]);
  }
  if (!(curvature > 0)) return;
  const auto step = static_cast<float>(size / curvature);
  for (std::int64_t j = 0; j < row.columns; ++j) {
    row.value[j] += step * row.direction[j];
    row.residual[j] -= row.keep[j] != 0 ? step * row.product[j] : 0.0f;
  }
}

}  // namespace

at::Tensor refit_kept(const at::Tensor& target, const at::Tensor& hessian, const at::Tensor& keep,
                      const at::Tensor& values, int steps) {
  const std::int64_t rows = target.size(0), columns = target.size(1);
  const at::Tensor diagonal = hessian.diagonal().contiguous();
  at::Tensor value = values.clone(), direction = at::zeros_like(values), product;
  at::Tensor residual = back_product(target - values, hessian).mul_(keep);
  std::vector<double> sizes(static_cast<std::size_t>(rows), 0.0);
  const auto for_rows = [&](const auto& act) {
    at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t at = r * columns;
        act(Row{value.data_ptr<float>() + at, residual.data_ptr<float>() + at,
                direction.data_ptr<float>() + at,
                product.defined() ? product.const_data_ptr<float>() + at : nullptr,
                keep.const_data_ptr<std::uint8_t>() + at, diagonal.const_data_ptr<float>(),
                columns},
            sizes[static_cast<std::size_t>(r)]);
      }
    });
  };
  for (int step = 0; step < steps; ++step) {
    for_rows([](const Row& row, double& size) { turn(row, size); });
    product = back_product(direction, hessian);
    for_rows([](const Row& row, double& size) { go(row, size); });
  }
  const at::Tensor lower =
      row_losses(target, value, hessian).lt(row_losses(target, values, hessian));
  return at::where(lower.unsqueeze(1), value, values);
}

}  // namespace attar::linalg
