#include <cmath>

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/ggml_blocks/block_parts.h"

namespace attar::kernels {
namespace {

constexpr int kElements = static_cast<int>(kGgmlBlockElements);

// The whole part of x, kept inside [0, top]; 0 for NaN. The bounds bite only when the inverse of a
// subnormal scale overflows, or on input that is not finite.
std::uint8_t code_of(float x, float top) {
  const float inside = x > 0 ? (x < top ? x : top) : 0.0f;
  return static_cast<std::uint8_t>(inside);
}

// The nearest whole number, halves away from zero, inside [-127, 127]; 0 for NaN. For such values
// the same as std::round, which the compiler does not vectorise.
int nearest_code(float x) {
  const float size = std::fabs(x);
  const float inside = size > 0 ? (size < 127 ? size : 127.0f) : 0.0f;
  const int whole = static_cast<int>(inside);
  const int nearest = whole + (inside - static_cast<float>(whole) >= 0.5f ? 1 : 0);
  return x < 0 ? -nearest : nearest;
}

// scale = largest |x| / 127; codes round half away from zero.
void choose_q8_0(const float* x, BlockParts& parts) {
  float largest = 0;
  for (int e = 0; e < kElements; ++e) {
    const float size = std::fabs(x[e]);
    largest = size > largest ? size : largest;
  }
  parts.d = largest / 127;
  const float inverse = parts.d != 0 ? 1 / parts.d : 0;
  for (int e = 0; e < kElements; ++e) {
    parts.codes[e] = static_cast<std::uint8_t>(nearest_code(x[e] * inverse) + 128);
  }
}

// scale = x / -middle for the x of largest magnitude (the first on ties), with its sign.
void choose_signed(const float* x, int middle, BlockParts& parts) {
  float magnitude = 0;
  float extreme = 0;
  for (int e = 0; e < kElements; ++e) {
    if (magnitude < std::fabs(x[e])) {
      magnitude = std::fabs(x[e]);
      extreme = x[e];
    }
  }
  const auto reach = static_cast<float>(middle);
  parts.d = extreme / -reach;
  const float inverse = parts.d != 0 ? 1 / parts.d : 0;
  for (int e = 0; e < kElements; ++e) {
    parts.codes[e] = code_of(x[e] * inverse + (reach + 0.5f), 2 * reach - 1);
  }
}

// scale = (max - min) / top.
void choose_range(const float* x, int top, BlockParts& parts) {
  float lowest = x[0];
  float highest = x[0];
  for (int e = 1; e < kElements; ++e) {
    lowest = x[e] < lowest ? x[e] : lowest;
    highest = x[e] > highest ? x[e] : highest;
  }
  parts.m = lowest;
  parts.d = (highest - lowest) / static_cast<float>(top);
  const float inverse = parts.d != 0 ? 1 / parts.d : 0;
  for (int e = 0; e < kElements; ++e) {
    parts.codes[e] = code_of((x[e] - lowest) * inverse + 0.5f, static_cast<float>(top));
  }
}

}  // namespace

void quantize_small(GgmlBlock type, const float* values, BlockParts& parts) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  if (type == GgmlBlock::q8_0) return choose_q8_0(values, parts);
  if (info.minimum) return choose_range(values, info.top, parts);
  choose_signed(values, info.middle, parts);
}

}  // namespace attar::kernels
