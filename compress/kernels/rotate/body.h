// The rotation, once for every instruction set S.
#pragma once

#include "compress/kernels/rms_norm/body.h"
#include "compress/kernels/rotate/rotate.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

template <class S>
ATTAR_INLINE void rotate_head(float* low, float* high, const float* cosines, const float* sines,
                              std::int64_t pairs) {
  constexpr int W = S::kWidth;
  std::int64_t j = 0;
  for (; j + W <= pairs; j += W) {
    const auto a = S::load(low + j), b = S::load(high + j);
    const auto cosine = S::load(cosines + j), sine = S::load(sines + j);
    S::store(low + j, S::sub(S::mul(a, cosine), S::mul(b, sine)));
    S::store(high + j, S::add(S::mul(b, cosine), S::mul(a, sine)));
  }
  const std::int64_t rest = pairs - j;
  if (rest == 0) return;
  const auto a = S::load_first(low + j, rest, 0.0f), b = S::load_first(high + j, rest, 0.0f);
  const auto cosine = S::load_first(cosines + j, rest, 0.0f);
  const auto sine = S::load_first(sines + j, rest, 0.0f);
  S::store_first(low + j, S::sub(S::mul(a, cosine), S::mul(b, sine)), rest);
  S::store_first(high + j, S::add(S::mul(b, cosine), S::mul(a, sine)), rest);
}

template <class S>
void rotate_rows(const Rotate& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t pairs = call.rotary_dim / 2;
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t position = call.positions ? call.positions[t] : call.first_position + t;
    for (std::int64_t h = 0; h < call.heads; ++h) {
      float* head = call.states + t * call.token_stride + h * call.head_dim;
      if (call.norm != nullptr) {
        normalise_row<S>(head, call.norm, head, call.head_dim, call.norm_eps);
      }
      rotate_head<S>(head, head + pairs, call.cosines + position * pairs,
                     call.sines + position * pairs, pairs);
    }
  }
}

}  // namespace attar::kernels
