#include "compress/kernels/round_tokens/round_tokens.h"

#include <bit>
#include <cmath>
#include <limits>

#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

// Magnitudes are ordered as their bits are, infinities and NaNs above all numbers.
float largest_magnitude(const float* x, std::int64_t columns) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < columns; ++i) {
    const std::int32_t size = std::bit_cast<std::int32_t>(x[i]) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  return std::bit_cast<float>(largest);
}

void round_token(const float* x, std::int64_t columns, float* out) {
  constexpr float kToNearest = 12582912.0f;  // 1.5 * 2^23: sums lose what is behind the point
  const float scale = largest_magnitude(x, columns) / 127.5f;
  if (!(scale > 0 && std::isfinite(scale))) {
    const float value = scale == 0 ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t i = 0; i < columns; ++i) out[i] = value;
    return;
  }
  for (std::int64_t i = 0; i < columns; ++i) {
    const float code = (x[i] / scale + kToNearest) - kToNearest;
    out[i] = (code > 127 ? 127 : code < -128 ? -128 : code) * scale;
  }
}

}  // namespace

void round_tokens(const RoundTokens& call) {
  for_row_ranges(call.rows, call.columns, [&](std::int64_t t, std::int64_t end) {
    for (; t < end; ++t) {
      round_token(call.x + t * call.x_stride, call.columns, call.out + t * call.columns);
    }
  });
}

}  // namespace attar::kernels
