// The norm, once for every instruction set S.
#pragma once

#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// Four sums, a vector each, taken in turn; the tail counts as zeros.
template <class S>
ATTAR_INLINE float mean_square(const float* x, std::int64_t columns) {
  constexpr int W = S::kWidth;
  typename S::Floats sums[4] = {S::broadcast(0), S::broadcast(0), S::broadcast(0), S::broadcast(0)};
  std::int64_t c = 0;
  for (; c + 4 * W <= columns; c += 4 * W) {
    for (int i = 0; i < 4; ++i) {
      const auto value = S::load(x + c + i * W);
      sums[i] = S::mul_add(value, value, sums[i]);
    }
  }
  for (int i = 0; c < columns; c += W, ++i) {
    const auto value = S::load_first(x + c, columns - c, 0.0f);
    sums[i] = S::mul_add(value, value, sums[i]);
  }
  const float sum = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
  return sum / static_cast<float>(columns);
}

template <class S>
ATTAR_INLINE void normalise_row(const float* x, const float* weight, float* out,
                                std::int64_t columns, float eps) {
  constexpr int W = S::kWidth;
  const double shifted = static_cast<double>(mean_square<S>(x, columns) + eps);
  const auto inverse = S::broadcast(static_cast<float>(1.0 / __builtin_sqrt(shifted)));
  std::int64_t c = 0;
  for (; c + W <= columns; c += W) {
    S::store(out + c, S::mul(S::mul(S::load(x + c), inverse), S::load(weight + c)));
  }
  if (c < columns) {
    const std::int64_t rest = columns - c;
    const auto value = S::mul(S::load_first(x + c, rest, 0.0f), inverse);
    S::store_first(out + c, S::mul(value, S::load_first(weight + c, rest, 0.0f)), rest);
  }
}

template <class S>
void rms_norm_rows(const RmsNorm& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t at = r * call.columns;
    normalise_row<S>(call.x + at, call.weight, call.out + at, call.columns, call.eps);
  }
}

template <class S>
void add_rms_norm_rows(const AddRmsNorm& call, std::int64_t begin, std::int64_t end) {
  constexpr int W = S::kWidth;
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t at = r * call.columns;
    float* x = call.x + at;
    const float* delta = call.delta + at;
    std::int64_t c = 0;
    for (; c + W <= call.columns; c += W) {
      S::store(x + c, S::add(S::load(x + c), S::load(delta + c)));
    }
    if (c < call.columns) {
      const std::int64_t rest = call.columns - c;
      const auto old = S::load_first(x + c, rest, 0.0f);
      S::store_first(x + c, S::add(old, S::load_first(delta + c, rest, 0.0f)), rest);
    }
    normalise_row<S>(x, call.weight, call.out + at, call.columns, call.eps);
  }
}

// Sum of a b c over a row.
template <class S>
ATTAR_INLINE float triple_sum(const float* a, const float* b, const float* c,
                              std::int64_t columns) {
  constexpr int W = S::kWidth;
  typename S::Floats sums[2] = {S::broadcast(0), S::broadcast(0)};
  std::int64_t i = 0;
  for (int turn = 0; i + W <= columns; i += W, turn ^= 1) {
    const auto product = S::mul(S::load(a + i), S::load(b + i));
    sums[turn] = S::mul_add(product, S::load(c + i), sums[turn]);
  }
  if (i < columns) {
    const std::int64_t rest = columns - i;
    const auto product = S::mul(S::load_first(a + i, rest, 0.0f), S::load_first(b + i, rest, 0.0f));
    sums[0] = S::mul_add(product, S::load_first(c + i, rest, 0.0f), sums[0]);
  }
  return S::sum(S::add(sums[0], sums[1]));
}

// begin and end count parts of kPartRows rows.
template <class S>
void rms_norm_gradient_rows(const RmsNormGradient& call, std::int64_t begin, std::int64_t end) {
  constexpr int W = S::kWidth;
  const std::int64_t n = call.columns;
  for (std::int64_t part = begin; part < end; ++part) {
    float* sums = call.weight_parts + part * n;
    for (std::int64_t c = 0; c < n; ++c) sums[c] = 0;
    const std::int64_t first = part * RmsNormGradient::kPartRows;
    const std::int64_t past = first + RmsNormGradient::kPartRows;
    for (std::int64_t r = first; r < (past < call.rows ? past : call.rows); ++r) {
      const float* x = call.x + r * n;
      const float* g = call.gradient + r * n;
      float* out = call.x_gradient + r * n;
      const double shifted = static_cast<double>(mean_square<S>(x, n) + call.eps);
      const double inverse = 1.0 / __builtin_sqrt(shifted);
      const double along = static_cast<double>(triple_sum<S>(x, g, call.weight, n)) * inverse *
                           inverse * inverse / static_cast<double>(n);
      const auto scale = S::broadcast(static_cast<float>(inverse));
      const auto back = S::broadcast(static_cast<float>(-along));
      for (std::int64_t c = 0; c < n; c += W) {
        const std::int64_t left = n - c;
        const bool whole = left >= W;
        const auto load = [&](const float* from) {
          return whole ? S::load(from + c) : S::load_first(from + c, left, 0.0f);
        };
        const auto value = load(x), gradient = load(g);
        const auto straight = S::mul(S::mul(load(call.weight), gradient), scale);
        const auto x_gradient = S::mul_add(value, back, straight);
        const auto sum = S::mul_add(S::mul(value, scale), gradient, load(sums));
        if (whole) {
          S::store(out + c, x_gradient);
          S::store(sums + c, sum);
        } else {
          S::store_first(out + c, x_gradient, left);
          S::store_first(sums + c, sum, left);
        }
      }
    }
  }
}

}  // namespace attar::kernels
