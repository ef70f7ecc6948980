// Activations rounded to 8 bits, every token with a scale of its own: what a layer of W8A8 reads
// (Dettmers et al. 2022, arXiv:2208.07339), of integers or of FP8 (Micikevicius et al. 2022,
// arXiv:2209.05433); compressed-tensors' dynamic "token" strategy, its presets W8A8 and
// FP8_DYNAMIC.
#pragma once

#include <cstdint>

namespace attar::kernels {

// What q can be.
enum class TokenGrid : std::uint8_t {
  integers,  // -128 .. 127;          a = max |x| / 127.5
  e4m3,      // FP8's numbers to 448; a = max |x| / 448
};

// out[t,i] = a q,  q = x[t,i] / a to the nearest, ties to even, at most the outermost. A token
// whose a is 0 in float32 becomes zeros; one with a value that is not finite becomes NaN. Every
// operation in float32, so values are those of whoever follows the same formula.
struct RoundTokens {
  const float* x;         // [rows, columns]
  std::int64_t x_stride;  // floats between rows
  float* out;             // [rows, columns], contiguous; may be x where x is
  std::int64_t rows;
  std::int64_t columns;
  TokenGrid grid = TokenGrid::integers;
};
void round_tokens(const RoundTokens& call);

// a of a token; NaN where a value is not finite.
float token_scale(const float* x, std::int64_t columns, TokenGrid grid = TokenGrid::integers);

// q of integers, of a value of a token whose scale is above 0.
inline float token_code(float x, float scale) {
  constexpr float kToNearest = 12582912.0f;  // 1.5 * 2^23: sums lose what is behind the point
  const float code = (x / scale + kToNearest) - kToNearest;
  return code > 127 ? 127 : code < -128 ? -128 : code;
}

}  // namespace attar::kernels
