// What a changed weight costs in its layer's output: tr(D H D^T), D = approximation - weight.
#pragma once

#include <ATen/core/Tensor.h>

namespace attar::linalg {

// By rows, [O] double: products in the type of `hessian`, float64 sums.
//   weight, approximation  [O, I] float32,  hessian  [I, I] float32 | double
at::Tensor row_losses(const at::Tensor& weight, const at::Tensor& approximation,
                      const at::Tensor& hessian);

// A copy of H [I, I] double for row_losses: float32, or double where products of float32 would
// overflow or vanish. `largest`: the magnitude of the largest weight.
at::Tensor loss_hessian(const at::Tensor& hessian, double largest);

// The sum of the rows' losses, in their order.
//   hessian  [I, I] double
double hessian_loss(const at::Tensor& weight, const at::Tensor& approximation,
                    const at::Tensor& hessian);

// The sum of all elements in float64, rows one after the other: at::sum to a single number is
// folded by the threads that there are.
double total(const at::Tensor& values);

// A dot product in lanes, float32; the lanes are summed in float64.
double dot(const float* a, const float* b, std::int64_t count);

}  // namespace attar::linalg
