// One block apart: its numbers, and its bytes.
#pragma once

#include <cstdint>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace attar::kernels {

struct BlockParts {
  std::uint8_t codes[kGgmlSuperElements];
  std::int8_t a[16];
  std::int8_t b[16];
  float d;  // rounded to float16 when written
  float m;
};

void write_block(GgmlBlock type, const BlockParts& parts, std::uint8_t* to);
void read_block(GgmlBlock type, const std::uint8_t* from, BlockParts& parts);

// The searching quantizers. values [blocks, elements].
void quantize_super(GgmlBlock type, const float* values, std::int64_t blocks, std::uint8_t* to);

inline float as_f16(float value) { return f16_value(f16_bits(value)); }

// x to the nearest whole number, ties to even, as the sum with 1.5 * 2^23 leaves it in the low
// bits.
inline int nearest_whole(float x) {
  const float sum = x + 12582912.0f;
  std::int32_t bits;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  return (bits & 0x007fffff) - 0x00400000;
}
inline int limited(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

}  // namespace attar::kernels
