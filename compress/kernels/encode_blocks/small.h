// Blocks of 32 without a search: Q8_0, Q4_0, Q5_0, Q4_1, Q5_1.
#pragma once

#include "compress/kernels/encode_blocks/encode_blocks.h"
#include "compress/kernels/encode_blocks/worst.h"
#include "compress/kernels/ggml_blocks/block_bytes.h"

namespace attar::kernels {

inline constexpr int kSmallChunk = 16;  // blocks: their scales are rounded side by side

// d and m in float32, 1 / d (0 where d is), and what a block holds of them.
struct SmallScales {
  float d[kSmallChunk], m[kSmallChunk], inverse[kSmallChunk];
  float held_d[kSmallChunk], held_m[kSmallChunk];
  std::uint16_t d_bits[kSmallChunk], m_bits[kSmallChunk];
};

template <class S>
struct SmallLanes {
  static constexpr int kVectors = 32 / S::kWidth;
  typename S::Floats x[kVectors];
};

template <class S>
ATTAR_INLINE SmallLanes<S> load_small(const float* from) {
  SmallLanes<S> lanes;
  for (int v = 0; v < lanes.kVectors; ++v) lanes.x[v] = S::load(from + v * S::kWidth);
  return lanes;
}

// The first of 32 values that equals `value`, by magnitude if so asked; `none` if there is none.
template <class S, bool magnitude>
ATTAR_INLINE float first_equal(const SmallLanes<S>& lanes, const float* values, float value,
                               float none) {
  const auto wanted = S::broadcast(value);
  for (int v = 0; v < lanes.kVectors; ++v) {
    const auto x = magnitude ? S::abs(lanes.x[v]) : lanes.x[v];
    const unsigned where = S::bits(S::equal(x, wanted));
    if (where != 0) return values[v * S::kWidth + __builtin_ctz(where)];
  }
  return none;
}

template <class S>
ATTAR_INLINE float largest_magnitude(const SmallLanes<S>& lanes) {
  auto largest = S::broadcast(0.0f);
  for (int v = 0; v < lanes.kVectors; ++v) largest = S::max(S::abs(lanes.x[v]), largest);
  return S::largest(largest);
}

// The first of 32 values of largest magnitude; 0 where all are.
template <class S>
ATTAR_INLINE float extreme_of(const SmallLanes<S>& lanes, const float* values) {
  const auto zero = S::broadcast(0.0f);
  auto high = zero, low = zero;  // low: of -x
  for (int v = 0; v < lanes.kVectors; ++v) {
    high = S::max(lanes.x[v], high);
    low = S::max(S::sub(zero, lanes.x[v]), low);
  }
  const float most = S::largest(high), least = S::largest(low);
  if (__builtin_expect(most == least, 0)) {
    return most > 0 ? first_equal<S, true>(lanes, values, most, 0) : 0.0f;
  }
  return __builtin_copysignf(most > least ? most : least, most - least);  // no branch to mispredict
}

// Q8_0: d = largest |x| / 127. With minima: d = (max - min) / top, m = min. Else d = x / -middle
// for the first x of largest magnitude.
template <class S, GgmlBlock type>
ATTAR_INLINE void small_scale(const float* values, float& d, float& m) {
  constexpr GgmlBlockInfo info = info_of(type);
  const SmallLanes<S> lanes = load_small<S>(values);
  if constexpr (type == GgmlBlock::q8_0) {
    d = largest_magnitude<S>(lanes) / 127;
  } else if constexpr (info.minimum) {
    auto low = lanes.x[0], high = S::sub(S::broadcast(0.0f), lanes.x[0]);  // high: of -x
    for (int v = 1; v < lanes.kVectors; ++v) {
      low = S::min(lanes.x[v], low);
      high = S::min(S::sub(S::broadcast(0.0f), lanes.x[v]), high);
    }
    const auto least = [](typename S::Floats x) __attribute__((always_inline)) {
      return -S::largest(S::sub(S::broadcast(0.0f), x));
    };
    // The first of equal values: it may be one of two zeros.
    m = first_equal<S, false>(lanes, values, least(low), values[0]);
    const float highest = first_equal<S, false>(lanes, values, -least(high), values[0]);
    d = (highest - m) / static_cast<float>(info.top);
  } else {
    d = extreme_of<S>(lanes, values) / -static_cast<float>((info.top + 1) / 2);
  }
}

template <class S>
ATTAR_INLINE void round_scales(SmallScales& scales) {
  const auto zero = S::broadcast(0.0f), one = S::broadcast(1.0f);
  for (int i = 0; i < kSmallChunk; i += S::kWidth) {
    const auto d = S::load(scales.d + i), m = S::load(scales.m + i);
    S::store(scales.inverse + i, S::select(S::equal(d, zero), zero, S::div(one, d)));
    S::to_f16(d, scales.d_bits + i);
    S::to_f16(m, scales.m_bits + i);
    S::store(scales.held_d + i, S::from_f16(scales.d_bits + i));
    S::store(scales.held_m + i, S::from_f16(scales.m_bits + i));
  }
}

// round(x / d), halves away from zero, as bytes of two's complement.
template <class S>
ATTAR_INLINE void code_magnitude(const float* values, float inverse, float held_d,
                                 std::uint8_t* codes, Worst<S>& worst) {
  const auto zero = S::broadcast(0.0f), factor = S::broadcast(inverse);
  const auto d = S::broadcast(held_d);
  for (int e = 0; e < 32; e += S::kWidth) {
    const auto x = S::load(values + e), steps = S::mul(x, factor);
    const auto size = S::min(S::max(S::abs(steps), zero), S::broadcast(127.0f));
    const auto even = S::round(size);
    const auto down = S::less(S::sub(size, even), S::broadcast(0.5f));  // not a half cut off
    const auto nearest = S::select(down, even, S::add(even, S::broadcast(1.0f)));
    const auto code = S::select(S::less(steps, zero), S::sub(zero, nearest), nearest);
    const auto turned = S::add(code, S::broadcast(256.0f));
    S::to_bytes(S::select(S::less(code, zero), turned, code), codes + e);
    add_difference<S>(S::mul(d, code), x, worst);
  }
}

// trunc((x - m) / d + half) within [0, top]; gives the bits 4 of the codes.
template <class S, GgmlBlock type>
ATTAR_INLINE std::uint32_t code_steps(const float* values, const SmallScales& scales, int block,
                                      std::uint8_t* codes, Worst<S>& worst) {
  constexpr GgmlBlockInfo info = info_of(type);
  const auto zero = S::broadcast(0.0f), top = S::broadcast(static_cast<float>(info.top));
  const auto shift = S::broadcast(info.minimum ? scales.m[block] : 0.0f);
  const auto half = S::broadcast(static_cast<float>(info.middle) + 0.5f);
  const auto middle = S::broadcast(static_cast<float>(info.middle));
  const auto inverse = S::broadcast(scales.inverse[block]);
  const auto d = S::broadcast(scales.held_d[block]), m = S::broadcast(scales.held_m[block]);
  std::uint32_t fifth = 0;
  for (int e = 0; e < 32; e += S::kWidth) {
    const auto x = S::load(values + e);
    const auto steps = S::add(S::mul(S::sub(x, shift), inverse), half);
    S::to_bytes(S::min(S::max(steps, zero), top), codes + e);
    const auto code = S::from_bytes(codes + e);
    if constexpr (info.minimum) {
      add_difference<S>(S::add(S::mul(d, code), m), x, worst);
    } else {
      add_difference<S>(S::mul(d, S::sub(code, middle)), x, worst);
    }
    if constexpr (info.top == 31) {
      const unsigned high = S::bits(S::less(S::broadcast(15.5f), code));
      fifth |= static_cast<std::uint32_t>(high) << e;
    }
  }
  return fifth;
}

template <class S, GgmlBlock type>
ATTAR_INLINE void encode_small(const float* values, std::int64_t blocks, std::uint8_t* to,
                               Worst<S>& worst) {
  constexpr GgmlBlockInfo info = info_of(type);
  SmallScales scales = {};
  for (std::int64_t first = 0; first < blocks; first += kSmallChunk) {
    const auto count =
        static_cast<int>(blocks - first < kSmallChunk ? blocks - first : kSmallChunk);
    const float* x = values + 32 * first;
    for (int b = 0; b < count; ++b) small_scale<S, type>(x + 32 * b, scales.d[b], scales.m[b]);
    round_scales<S>(scales);
    for (int b = 0; b < count; ++b, to += info.bytes) {
      __builtin_memcpy(to, &scales.d_bits[b], 2);
      if constexpr (type == GgmlBlock::q8_0) {
        code_magnitude<S>(x + 32 * b, scales.inverse[b], scales.held_d[b], to + 2, worst);
      } else {
        std::uint8_t codes[32];
        const std::uint32_t fifth = code_steps<S, type>(x + 32 * b, scales, b, codes, worst);
        if constexpr (info.minimum) __builtin_memcpy(to + 2, &scales.m_bits[b], 2);
        if constexpr (info.top == 31) __builtin_memcpy(to + info.bytes - 20, &fifth, 4);
        write_nibbles<16>(codes, to + info.bytes - 16);
      }
    }
  }
}

}  // namespace attar::kernels
