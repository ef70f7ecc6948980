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

// x, at most about 448, to three bits behind the leading one, or below 2^-6 to multiples of 2^-9.
float to_e4m3(float x) {
  constexpr float kToMultiples = 24576.0f;  // 1.5 * 2^14: the last bit of its sums is 2^-9
  constexpr std::uint32_t kDropped = 20, kHalf = (1u << (kDropped - 1)) - 1;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  bits += kHalf + (bits >> kDropped & 1u);
  const float normal = std::bit_cast<float>(bits & ~((1u << kDropped) - 1));
  const float rounded = std::fabs(x) < 0x1p-6f ? (x + kToMultiples) - kToMultiples : normal;
  return rounded > 448 ? 448 : rounded < -448 ? -448 : rounded;
}

void round_token(const float* x, std::int64_t columns, TokenGrid grid, float* out) {
  const float scale = token_scale(x, columns, grid);
  if (!(scale > 0)) {
    for (std::int64_t i = 0; i < columns; ++i) out[i] = scale;
  } else if (grid == TokenGrid::e4m3) {
    for (std::int64_t i = 0; i < columns; ++i) out[i] = to_e4m3(x[i] / scale) * scale;
  } else {
    for (std::int64_t i = 0; i < columns; ++i) out[i] = token_code(x[i], scale) * scale;
  }
}

}  // namespace

float token_scale(const float* x, std::int64_t columns, TokenGrid grid) {
  const float scale = largest_magnitude(x, columns) / (grid == TokenGrid::e4m3 ? 448.0f : 127.5f);
  return std::isfinite(scale) ? scale : std::numeric_limits<float>::quiet_NaN();
}

void round_tokens(const RoundTokens& call) {
  for_row_ranges(call.rows, call.columns, [&](std::int64_t t, std::int64_t end) {
    for (; t < end; ++t) {
      round_token(call.x + t * call.x_stride, call.columns, call.grid, call.out + t * call.columns);
    }
  });
}

}  // namespace attar::kernels
