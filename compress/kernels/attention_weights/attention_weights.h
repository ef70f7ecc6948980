// The element-wise half of attention's gradient, for a tile of queries; the products around it are
// the BLAS's.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

// Row r sees its first `first_count + r` keys. On entry scores = q kT and weight_gradients = g vT
// (g: gradient of the output). On return
//   scores            the attention weights p = softmax(scale * scores), 0 for keys not seen
//   weight_gradients  the gradient of q kT: scale * p * (weight_gradients - sum(p
//   weight_gradients))
// On one thread.
struct AttentionWeights {
  float* scores;            // [rows, columns]
  float* weight_gradients;  // [rows, columns]
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t row_stride;   // of both
  std::int64_t first_count;  // >= 1; first_count + rows - 1 <= columns
  float scale;
};
void attention_weights(const AttentionWeights& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
