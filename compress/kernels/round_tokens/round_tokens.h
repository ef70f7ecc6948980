// Activations rounded to 8 bits, every token with a scale of its own: what a layer of W8A8 reads
// (Dettmers et al. 2022, arXiv:2208.07339; compressed-tensors' dynamic "token" strategy).
#pragma once

#include <cstdint>

namespace attar::kernels {

// out[t,i] = a q,  a = max_i |x[t,i]| / 127.5,  q = x[t,i] / a to nearest, ties to even, clamped to
// [-128, 127]. All zeros stay zeros; a token with a value that is not finite becomes NaN. Every
// operation in float32, so values are those of whoever follows the same formula.
struct RoundTokens {
  const float* x;         // [rows, columns]
  std::int64_t x_stride;  // floats between rows
  float* out;             // [rows, columns], contiguous; may be x where x is
  std::int64_t rows;
  std::int64_t columns;
};
void round_tokens(const RoundTokens& call);

// a of a token: 0 where all of it is, NaN where a value is not finite.
float token_scale(const float* x, std::int64_t columns);

// q of a value of a token whose scale is above 0.
inline float token_code(float x, float scale) {
  constexpr float kToNearest = 12582912.0f;  // 1.5 * 2^23: sums lose what is behind the point
  const float code = (x / scale + kToNearest) - kToNearest;
  return code > 127 ? 127 : code < -128 ? -128 : code;
}

}  // namespace attar::kernels
