// Scales and codes of ggml's blocks of 32 that need no search: Q8_0, Q4_0, Q5_0, Q4_1, Q5_1.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

enum class SmallScale : std::uint8_t {
  magnitude,  // d = largest |x| / 127, codes round(x / d) + 128, halves away from zero
  extreme,    // d = x / -middle for the first x of largest magnitude; codes trunc(x / d + middle +
              // .5)
  range,      // d = (max - min) / top, m = min; codes trunc((x - m) / d + .5)
};

// Blocks of 32 values; 1 / d in float32 before d is rounded, and 0 where d is. All variants give
// the same bits. NaN and infinities spoil their own block alone.
struct SmallBlocks {
  SmallScale scale;
  int top;              // largest code: 15 or 31; not for magnitude
  const float* values;  // [blocks, 32]
  float* d;             // [blocks]
  float* m;             // [blocks], range only
  std::uint8_t* codes;  // [blocks, 32]
};
void small_blocks(const SmallBlocks& call, std::int64_t blocks,
                  const Variant& variant = active_variant());

}  // namespace attar::kernels
