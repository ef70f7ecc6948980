// What a changed weight costs in its layer's output: tr(D H D^T), D = approximation - weight.
#pragma once

#include <ATen/core/Tensor.h>

namespace attar::linalg {

// By rows, [O] double: float32 products, float64 sums.
//   weight, approximation  [O, I] float32,  hessian  [I, I] float32
at::Tensor row_losses(const at::Tensor& weight, const at::Tensor& approximation,
                      const at::Tensor& hessian);

// The sum of the rows' losses, in their order.
//   hessian  [I, I] double
double hessian_loss(const at::Tensor& weight, const at::Tensor& approximation,
                    const at::Tensor& hessian);

// The sum of [n] double, in its order.
double total(const at::Tensor& values);

// A dot product in lanes, float32; the lanes are summed in float64.
double dot(const float* a, const float* b, std::int64_t count);

}  // namespace attar::linalg
