// One block apart: its numbers, and its bytes.
#pragma once

#include <cstdint>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

inline constexpr GgmlBlockInfo kGgmlBlockInfos[] = {
    {32, 34, 32, 255, 128, false, false, 0, 0},       // Q8_0
    {32, 18, 32, 15, 8, false, false, 0, 0},          // Q4_0
    {32, 20, 32, 15, 0, true, false, 0, 0},           // Q4_1
    {32, 22, 32, 31, 16, false, false, 0, 0},         // Q5_0
    {32, 24, 32, 31, 0, true, false, 0, 0},           // Q5_1
    {32, 18, 32, 15, 0, false, true, 0, 0},           // IQ4_NL
    {256, 84, 16, 3, 0, true, false, 0, 15},          // Q2_K
    {256, 110, 16, 7, 4, false, false, -32, 31},      // Q3_K
    {256, 144, 32, 15, 0, true, false, 0, 63},        // Q4_K
    {256, 176, 32, 31, 0, true, false, 0, 63},        // Q5_K
    {256, 210, 16, 63, 32, false, false, -128, 127},  // Q6_K
    {256, 136, 32, 15, 0, false, true, -32, 31},      // IQ4_XS
};
constexpr GgmlBlockInfo info_of(GgmlBlock type) { return kGgmlBlockInfos[static_cast<int>(type)]; }

struct BlockParts {
  std::uint8_t codes[kGgmlSuperElements];
  std::int8_t a[16];
  std::int8_t b[16];
  float d;  // rounded to float16 when written
  float m;
};

void write_block(GgmlBlock type, const BlockParts& parts, std::uint8_t* to);
void read_block(GgmlBlock type, const std::uint8_t* from, BlockParts& parts);

ATTAR_INLINE float as_f16(float value) { return f16_value(f16_bits(value)); }

// x to the nearest whole number, ties to even, as the sum with 1.5 * 2^23 leaves it in the low
// bits.
ATTAR_INLINE int nearest_whole(float x) {
  const float sum = x + 12582912.0f;
  std::int32_t bits;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  return (bits & 0x007fffff) - 0x00400000;
}
ATTAR_INLINE int limited(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

}  // namespace attar::kernels
