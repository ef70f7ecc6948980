// How much the model's prediction minds an error at each place of a text: what calibration weighs
// its tokens with.
//
// A layer is rounded so that sum_t w_t |D x_t|^2 is small. With w_t = |dL/dy_t|^2, y = W x and L
// the loss of tokens that the model draws itself, that is the loss's own quadratic form, coarsened
// to one number a token (GuidedQuant, Kim et al. 2025, arXiv:2505.07004, with one group of
// outputs). Single gradients are noisy, and what differs between tokens is above all their place:
// the first tokens are where attention goes when it has nowhere to go, so their values count for
// hundreds of others. So weights are means over windows and over places [0], [1], [2, 3], [4, 7],
// ...
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "compress/core/model.h"
#include "compress/core/pass.h"

namespace attar {

struct TokenWeights {
  // Of all blocks and inputs, [layers, sites, T] float32, each [T] of mean 1, and 1 where no
  // gradient arrives; undefined when no window was left.
  at::Tensor weights;
  std::int64_t windows = 0;  // that were used
  std::int64_t dropped = 0;  // left out: a gradient among them was not finite
};

// `ids` [N, T] int64, of which the first `windows` are used. The same bits for any number of
// threads. Time: about three forward passes of these windows. Memory: token_weights_bytes.
TokenWeights token_weights(const Model& model, const at::Tensor& ids, std::int64_t windows,
                           const RunContext& context);

// Peak bytes of the above beside the program: hidden states of some windows at every block, one
// block with its gradient, the head.
std::int64_t token_weights_bytes(const ModelConfig& config, std::int64_t length);

}  // namespace attar
