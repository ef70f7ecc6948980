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
  const float scale = token_scale(x, columns);
  if (!(scale > 0)) {
    for (std::int64_t i = 0; i < columns; ++i) out[i] = scale;
    return;
  }
  for (std::int64_t i = 0; i < columns; ++i) out[i] = token_code(x[i], scale) * scale;
}

}  // namespace

float token_scale(const float* x, std::int64_t columns) {
  const float scale = largest_magnitude(x, columns) / 127.5f;
  return std::isfinite(scale) ? scale : std::numeric_limits<float>::quiet_NaN();
}

void round_tokens(const RoundTokens& call) {
  for_row_ranges(call.rows, call.columns, [&](std::int64_t t, std::int64_t end) {
    for (; t < end; ++t) {
      round_token(call.x + t * call.x_stride, call.columns, call.out + t * call.columns);
    }
  });
}

}  // namespace attar::kernels
