// A linear layer in codes whose grid learns: the codes stay, scales and real minima move.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/weight.h"

namespace attar {

// What a loss that has `weight` [O, I] as its gradient with respect to the dense values has with
// respect to the grid: for each group the sum over its columns of weight * (code - zero), and of
// weight alone for a minimum (value = scale * code + minimum). [O, G] float32, added up in float64
// in the order of the columns; the minima are undefined where the scheme has none.
struct GridGradient {
  at::Tensor scale;
  at::Tensor minimum;
};
GridGradient grid_gradient(const at::Tensor& weight, const QuantizedWeight& quantized);

// x W^T + bias, x [..., I] -> [..., O], W = dense(weight). Gradients of x, bias, scale and real
// minima (EfficientQAT, Chen et al. 2024, arXiv:2407.11062, its second phase). The dense values are
// made again for the gradient: what is kept is x alone.
at::Tensor quantized_linear_with_gradient(const at::Tensor& x, const QuantizedWeight& weight,
                                          const at::Tensor& bias);

}  // namespace attar
