// The two register-blocked products of attention: M rows by N vectors, for every instruction set S.
//
// Each element of a result is one chain of multiply-adds in ascending order, whatever M and N.
#pragma once

#include <cstdint>

#include "compress/kernels/causal_attention/task.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// scores[r][key] = sum over d of queries[r][d] * keys[d][key], for N vectors of keys.
// keys is packed [head_dim, kKeyTile], scores [M, kKeyTile].
template <class S, int M, int N>
ATTAR_INLINE void score_block(const float* const* queries, const float* keys, std::int64_t head_dim,
                              float* scores) {
  constexpr int W = S::kWidth;
  typename S::Floats sums[M][N];
  for (int r = 0; r < M; ++r) {
    for (int n = 0; n < N; ++n) sums[r][n] = S::broadcast(0.0f);
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    typename S::Floats key[N];
    for (int n = 0; n < N; ++n) key[n] = S::load(keys + d * kKeyTile + n * W);
    for (int r = 0; r < M; ++r) {
      const auto query = S::broadcast(queries[r][d]);
      for (int n = 0; n < N; ++n) sums[r][n] = S::mul_add(query, key[n], sums[r][n]);
    }
  }
  for (int r = 0; r < M; ++r) {
    for (int n = 0; n < N; ++n) S::store(scores + r * kKeyTile + n * W, sums[r][n]);
  }
}

// out[r][c] = out[r][c] * decay[r] + sum over keys of weights[r][key] * values[key][c], for N
// vectors of columns, of which the last has `last` lanes. out is [M, out_stride] and padded.
template <class S, int M, int N>
ATTAR_INLINE void value_block(const float* weights, const float* values, std::int64_t value_stride,
                              std::int64_t key_begin, std::int64_t key_end, const float* decay,
                              float* out, std::int64_t out_stride, std::int64_t last) {
  constexpr int W = S::kWidth;
  typename S::Floats sums[M][N];
  for (int r = 0; r < M; ++r) {
    const auto factor = S::broadcast(decay[r]);
    for (int n = 0; n < N; ++n) {
      sums[r][n] = S::mul(S::load(out + r * out_stride + n * W), factor);
    }
  }
  for (std::int64_t key = key_begin; key < key_end; ++key) {
    typename S::Floats value[N];
    const float* from = values + key * value_stride;
    for (int n = 0; n + 1 < N; ++n) value[n] = S::load(from + n * W);
    from += (N - 1) * W;
    value[N - 1] = last == W ? S::load(from) : S::load_first(from, last, 0.0f);
    for (int r = 0; r < M; ++r) {
      const auto weight = S::broadcast(weights[r * kKeyTile + key]);
      for (int n = 0; n < N; ++n) sums[r][n] = S::mul_add(weight, value[n], sums[r][n]);
    }
  }
  for (int r = 0; r < M; ++r) {
    for (int n = 0; n < N; ++n) S::store(out + r * out_stride + n * W, sums[r][n]);
  }
}

// All key vectors [0, vectors), in blocks of at most kBlockVectors.
template <class S, int M>
void score_rows(const float* const* queries, const float* keys, std::int64_t head_dim,
                std::int64_t vectors, float* scores) {
  constexpr int B = S::kBlockVectors;
  for (std::int64_t n = 0; n < vectors; n += B) {
    const float* from = keys + n * S::kWidth;
    float* to = scores + n * S::kWidth;
    const std::int64_t left = vectors - n;
    if (left >= B) {
      score_block<S, M, B>(queries, from, head_dim, to);
    } else if (B > 3 && left == 3) {
      score_block<S, M, B - 1>(queries, from, head_dim, to);
    } else if (B > 2 && left == 2) {
      score_block<S, M, 2>(queries, from, head_dim, to);
    } else {
      score_block<S, M, 1>(queries, from, head_dim, to);
    }
  }
}

// All columns [0, head_dim), in blocks of at most kBlockVectors vectors.
template <class S, int M>
void value_rows(const float* weights, const float* values, std::int64_t value_stride,
                std::int64_t key_begin, std::int64_t key_end, const float* decay, float* out,
                std::int64_t out_stride, std::int64_t head_dim) {
  constexpr int W = S::kWidth;
  constexpr int B = S::kBlockVectors;
  for (std::int64_t c = 0; c < head_dim; c += B * W) {
    const std::int64_t vectors = (head_dim - c + W - 1) / W;
    const std::int64_t last = vectors > B ? W : head_dim - c - (vectors - 1) * W;
    const float* from = values + c;
    float* to = out + c;
    if (vectors >= B) {
      value_block<S, M, B>(weights, from, value_stride, key_begin, key_end, decay, to, out_stride,
                           last);
    } else if (B > 3 && vectors == 3) {
      value_block<S, M, B - 1>(weights, from, value_stride, key_begin, key_end, decay, to,
                               out_stride, last);
    } else if (B > 2 && vectors == 2) {
      value_block<S, M, 2>(weights, from, value_stride, key_begin, key_end, decay, to, out_stride,
                           last);
    } else {
      value_block<S, M, 1>(weights, from, value_stride, key_begin, key_end, decay, to, out_stride,
                           last);
    }
  }
}

}  // namespace attar::kernels
