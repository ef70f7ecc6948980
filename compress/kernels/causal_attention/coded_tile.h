// A tile of coded keys and values as floats, once for every instruction set S.
#pragma once

#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/causal_attention/task.h"
#include "compress/kernels/coded_heads/coded_heads.h"
#include "compress/kernels/rotate/body.h"

namespace attar::kernels {

// mix_channels of one head, the same sums in the same order.
template <class S>
ATTAR_INLINE void mix_one_head(float* head, std::int64_t head_dim) {
  constexpr int W = S::kWidth;
  const std::int64_t block = head_dim & -head_dim;
  for (std::int64_t width = 1; width < block; width *= 2) {
    for (std::int64_t i = 0; i < head_dim; i += 2 * width) {
      float *low = head + i, *high = head + i + width;
      std::int64_t j = 0;
      for (; j + W <= width; j += W) {
        const auto a = S::load(low + j), b = S::load(high + j);
        S::store(low + j, S::add(a, b));
        S::store(high + j, S::sub(a, b));
      }
      for (; j < width; ++j) {
        const float a = low[j], b = high[j];
        low[j] = a + b;
        high[j] = a - b;
      }
    }
  }
  const float scale = 1 / __builtin_sqrtf(static_cast<float>(block));
  for (std::int64_t i = 0; i < head_dim; ++i) head[i] *= scale;
}

template <class S>
struct CodedTiles {
  alignas(64) float keys[kKeyTile * kMaxHeadDim];
  alignas(64) float values[kKeyTile * kMaxHeadDim];
  std::int64_t stride;

  CodedTiles(const CausalAttention& call, const AttentionSequence& sequence, std::int64_t head)
      : stride((call.head_dim + 15) / 16 * 16),
        coded_(call.coded),
        head_dim_(call.head_dim),
        offset_(head * coded_head_bytes(call.head_dim, call.coded.bits)),
        k_(sequence.k_codes + offset_),
        v_(sequence.v_codes + offset_),
        bias_(call.coded.key_bias ? call.coded.key_bias + head * call.head_dim : nullptr) {}

  void decode(std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = (begin + i) * coded_.stride;
      decode_head<S>(k_ + at, head_dim_, coded_.bits, keys + i * stride);
      decode_head<S>(v_ + at, head_dim_, coded_.bits, values + i * stride);
      if (bias_) add_bias(begin + i, keys + i * stride);
    }
  }

 private:
  void add_bias(std::int64_t position, float* key) const {
    alignas(64) float turned[kMaxHeadDim];
    const std::int64_t pairs = head_dim_ / 2;
    for (std::int64_t d = 0; d < head_dim_; ++d) turned[d] = bias_[d];
    rotate_head<S>(turned, turned + pairs, coded_.cosines + position * pairs,
                   coded_.sines + position * pairs, pairs);
    mix_one_head<S>(turned, head_dim_);
    for (std::int64_t d = 0; d < head_dim_; ++d) key[d] += turned[d];
  }

  const CodedAttention& coded_;
  std::int64_t head_dim_;
  std::int64_t offset_;
  const std::uint8_t* k_;
  const std::uint8_t* v_;
  const float* bias_;
};

}  // namespace attar::kernels
