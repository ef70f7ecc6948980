// Blocks of 32 without a search, once for every instruction set S.
#pragma once

#include "compress/kernels/simd/inline.h"
#include "compress/kernels/small_blocks/small_blocks.h"

namespace attar::kernels {

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

template <class S>
ATTAR_INLINE void code_magnitude(const float* values, float& d, std::uint8_t* codes) {
  const SmallLanes<S> lanes = load_small<S>(values);
  d = largest_magnitude<S>(lanes) / 127;
  const auto inverse = S::broadcast(d != 0 ? 1 / d : 0.0f), zero = S::broadcast(0.0f);
  for (int v = 0; v < lanes.kVectors; ++v) {
    const auto x = S::mul(lanes.x[v], inverse);
    const auto size = S::min(S::max(S::abs(x), zero), S::broadcast(127.0f));
    const auto even = S::round(size);
    const auto down = S::less(S::sub(size, even), S::broadcast(0.5f));  // not a half cut off
    const auto nearest = S::select(down, even, S::add(even, S::broadcast(1.0f)));
    const auto code = S::select(S::less(x, zero), S::sub(zero, nearest), nearest);
    S::to_bytes(S::add(code, S::broadcast(128.0f)), codes + v * S::kWidth);
  }
}

template <class S>
ATTAR_INLINE void code_steps(const SmallLanes<S>& lanes, float shift, float d, float half,
                             float top, std::uint8_t* codes) {
  const auto inverse = S::broadcast(d != 0 ? 1 / d : 0.0f), zero = S::broadcast(0.0f);
  for (int v = 0; v < lanes.kVectors; ++v) {
    const auto steps = S::mul(S::sub(lanes.x[v], S::broadcast(shift)), inverse);
    const auto code = S::add(steps, S::broadcast(half));
    S::to_bytes(S::min(S::max(code, zero), S::broadcast(top)), codes + v * S::kWidth);
  }
}

template <class S>
ATTAR_INLINE void code_extreme(const float* values, int top, float& d, std::uint8_t* codes) {
  const SmallLanes<S> lanes = load_small<S>(values);
  const float largest = largest_magnitude<S>(lanes);
  const auto middle = static_cast<float>((top + 1) / 2);
  const float extreme = largest > 0 ? first_equal<S, true>(lanes, values, largest, 0) : 0.0f;
  d = extreme / -middle;
  code_steps<S>(lanes, 0, d, middle + 0.5f, static_cast<float>(top), codes);
}

template <class S>
ATTAR_INLINE void code_range(const float* values, int top, float& d, float& m,
                             std::uint8_t* codes) {
  const SmallLanes<S> lanes = load_small<S>(values);
  auto low = lanes.x[0], high = S::sub(S::broadcast(0.0f), lanes.x[0]);  // high: of -x
  for (int v = 1; v < lanes.kVectors; ++v) {
    low = S::min(lanes.x[v], low);
    high = S::min(S::sub(S::broadcast(0.0f), lanes.x[v]), high);
  }
  const auto least = [](typename S::Floats x) {
    return -S::largest(S::sub(S::broadcast(0.0f), x));
  };
  // The first of equal values: it may be one of two zeros.
  m = first_equal<S, false>(lanes, values, least(low), values[0]);
  const float highest = first_equal<S, false>(lanes, values, -least(high), values[0]);
  d = (highest - m) / static_cast<float>(top);
  code_steps<S>(lanes, m, d, 0.5f, static_cast<float>(top), codes);
}

template <class S>
void small_blocks_range(const SmallBlocks& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t b = begin; b < end; ++b) {
    const float* values = call.values + 32 * b;
    std::uint8_t* codes = call.codes + 32 * b;
    if (call.scale == SmallScale::magnitude) {
      code_magnitude<S>(values, call.d[b], codes);
    } else if (call.scale == SmallScale::extreme) {
      code_extreme<S>(values, call.top, call.d[b], codes);
    } else {
      code_range<S>(values, call.top, call.d[b], call.m[b], codes);
    }
  }
}

}  // namespace attar::kernels
