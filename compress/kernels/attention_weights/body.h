// Attention weights and their gradient, once for every instruction set S.
#pragma once

#include "compress/kernels/attention_weights/attention_weights.h"
#include "compress/kernels/simd/math.h"

namespace attar::kernels {

// scores -> exp(scale * score - largest); returns one over their sum.
template <class S>
ATTAR_INLINE float exponentials_of(float* scores, std::int64_t count, float scale) {
  constexpr int W = S::kWidth;
  constexpr float kNothing = -__builtin_inff();
  auto top = S::broadcast(kNothing);
  std::int64_t c = 0;
  for (; c + W <= count; c += W) top = S::max(top, S::load(scores + c));
  if (c < count) top = S::max(top, S::load_first(scores + c, count - c, kNothing));
  const auto largest = S::broadcast(S::largest(top));
  auto sum = S::broadcast(0.0f);
  const auto weigh = [&](typename S::Floats score) {
    return exponential<S>(S::mul(S::sub(score, largest), S::broadcast(scale)));
  };
  for (c = 0; c + W <= count; c += W) {
    const auto weight = weigh(S::load(scores + c));
    S::store(scores + c, weight);
    sum = S::add(sum, weight);
  }
  if (c < count) {
    const auto weight = weigh(S::load_first(scores + c, count - c, kNothing));
    S::store_first(scores + c, weight, count - c);
    sum = S::add(sum, weight);
  }
  return 1.0f / S::sum(sum);
}

template <class S>
void weigh_attention(const AttentionWeights& call) {
  constexpr int W = S::kWidth;
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const std::int64_t count = call.first_count + r;
    float* scores = call.scores + r * call.row_stride;
    float* gradients = call.weight_gradients + r * call.row_stride;
    const auto inverse = S::broadcast(exponentials_of<S>(scores, count, call.scale));
    auto along = S::broadcast(0.0f);
    std::int64_t c = 0;
    for (; c + W <= count; c += W) {
      const auto weight = S::mul(S::load(scores + c), inverse);
      S::store(scores + c, weight);
      along = S::mul_add(weight, S::load(gradients + c), along);
    }
    if (c < count) {
      const auto weight = S::mul(S::load_first(scores + c, count - c, 0.0f), inverse);
      S::store_first(scores + c, weight, count - c);
      along = S::mul_add(weight, S::load_first(gradients + c, count - c, 0.0f), along);
    }
    const auto mean = S::broadcast(S::sum(along));
    const auto scale = S::broadcast(call.scale);
    const auto turn = [&](typename S::Floats weight, typename S::Floats gradient) {
      return S::mul(S::mul(scale, weight), S::sub(gradient, mean));
    };
    for (c = 0; c + W <= count; c += W) {
      S::store(gradients + c, turn(S::load(scores + c), S::load(gradients + c)));
    }
    if (c < count) {
      const std::int64_t left = count - c;
      S::store_first(
          gradients + c,
          turn(S::load_first(scores + c, left, 0.0f), S::load_first(gradients + c, left, 0.0f)),
          left);
    }
    for (c = count; c < call.columns; ++c) scores[c] = gradients[c] = 0.0f;
  }
}

}  // namespace attar::kernels
