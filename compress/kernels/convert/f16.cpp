#include "compress/kernels/convert/f16.h"

#include <bit>

namespace attar::kernels {

float f16_value(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t exponent = (half >> 10) & 31;
  const std::uint32_t fraction = half & 0x3ff;
  if (exponent == 31) {
    const std::uint32_t quiet = fraction != 0 ? 0x400000 : 0;
    return std::bit_cast<float>(sign | 0x7f800000 | quiet | (fraction << 13));
  }
  if (exponent == 0) {  // fraction * 2^-24, exact
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

std::uint16_t f16_bits(float value) {
  const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (word >> 16) & 0x8000;
  const std::uint32_t magnitude = word & 0x7fffffff;
  std::uint32_t bits;
  if (magnitude > 0x7f800000) {
    bits = 0x7e00 | ((magnitude >> 13) & 0x3ff);
  } else if (magnitude >= 0x47800000) {  // 2^16 and more; what rounds up to 2^16 carries below
    bits = 0x7c00;
  } else if (magnitude >= 0x38800000) {  // normal: drop 13 bits, ties to even
    bits = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  } else {  // subnormal: adding 1/2 leaves the multiple of 2^-24 in the low bits, rounded to even
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000;
  }
  return static_cast<std::uint16_t>(sign | bits);
}

}  // namespace attar::kernels
