// Rotary position embedding (Su et al. 2021, arXiv:2104.09864), rotate_half convention.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

// Rotates, in place, the pairs (j, j + rotary_dim/2), j < rotary_dim/2, of every head:
//
//   lo' = lo * cos - hi * sin        hi' = hi * cos + lo * sin
//
// with each product rounded before the sum (as Hugging Face does in fp32). The components from
// rotary_dim on stay as they are. Call it once for q and once for k.
struct Rotate {
  float* states;              // [tokens, heads, head_dim]; heads are contiguous
  std::int64_t token_stride;  // floats from one token to the next, >= heads * head_dim
  std::int64_t tokens;
  std::int64_t heads;
  std::int64_t head_dim;
  std::int64_t rotary_dim;  // even, <= head_dim
  const float* cosines;     // [table_positions, rotary_dim/2]
  const float* sines;       // [table_positions, rotary_dim/2]
  std::int64_t table_positions;
  std::int64_t first_position = 0;          // token t sits at first_position + t ...
  const std::int64_t* positions = nullptr;  // ... unless this gives each its own: [tokens]
  const float* norm = nullptr;              // [head_dim]: each head is normed first (rms_norm)
  float norm_eps = 0;
};

// Throws std::invalid_argument if a position lies outside the table.
void rotate(const Rotate& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
