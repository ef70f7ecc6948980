// The steps of a block whose gradients are worked out by hand: less memory and time than the
// gradients of their parts, and the same bits for any number of threads. All float32. Without
// gradients asked for, these are the kernels and nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/forward.h"

namespace attar {

// x W^T + bias: x [..., I], weight [O, I], bias [O] or undefined -> [..., O]. Of the
// products for the gradients of x and W only those that are asked for are made.
at::Tensor linear_with_gradient(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias);

// x [..., C], weight [C] -> [..., C]. Zhang and Sennrich 2019, arXiv:1910.07467.
at::Tensor rms_norm_with_gradient(const at::Tensor& x, const at::Tensor& weight, double eps);

// act(gate) * up, both [..., C].
at::Tensor gated_activation_with_gradient(const at::Tensor& gate, const at::Tensor& up,
                                          Activation activation);

// (act(gate) * up) W^T + bias: gate, up [..., I], weight [O, I], bias [O] or undefined -> [..., O].
// What goes into the product is not kept but made again for the gradient; I must not be 0.
at::Tensor gated_linear_with_gradient(const at::Tensor& gate, const at::Tensor& up,
                                      Activation activation, const at::Tensor& weight,
                                      const at::Tensor& bias);

// Rotates q and k, then causal attention. q [B, T, heads * head_dim]; k, v [B, T, kv_heads *
// head_dim], as the linear layers give them; -> [B, T, heads * head_dim]. Saves q, k and v; the
// gradient computes the weights again, a tile of queries at a time, and adds over heads and tiles
// in one order.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
};
at::Tensor attention_with_gradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const RopeTable& rope, const AttentionShape& shape);

}  // namespace attar
