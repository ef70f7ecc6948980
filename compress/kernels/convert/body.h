// The four conversions, once for every instruction set S.
#pragma once

#include "compress/kernels/convert/convert.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// Whole vectors in place; the rest through a buffer.
template <class S, class Convert>
ATTAR_INLINE void widen_all(const void* source, float* out, std::int64_t count, Convert convert) {
  constexpr int W = S::kWidth;
  const char* from = static_cast<const char*>(source);
  std::int64_t i = 0;
  for (; i + W <= count; i += W) S::store(out + i, convert(from + 2 * i));
  if (i < count) {
    std::uint16_t last[W] = {};
    __builtin_memcpy(last, from + 2 * i, static_cast<std::size_t>(2 * (count - i)));
    S::store_first(out + i, convert(last), count - i);
  }
}

template <class S, class Convert>
ATTAR_INLINE void narrow_all(const float* source, void* out, std::int64_t count, Convert convert) {
  constexpr int W = S::kWidth;
  char* to = static_cast<char*>(out);
  std::int64_t i = 0;
  for (; i + W <= count; i += W) convert(S::load(source + i), to + 2 * i);
  if (i < count) {
    std::uint16_t last[W];
    convert(S::load_first(source + i, count - i, 0.0f), last);
    __builtin_memcpy(to + 2 * i, last, static_cast<std::size_t>(2 * (count - i)));
  }
}

template <class S>
void f16_to_f32_all(const void* source, float* out, std::int64_t count) {
  widen_all<S>(
      source, out, count,
      [](const void* p) __attribute__((always_inline)) { return S::from_f16(p); });
}

template <class S>
void bf16_to_f32_all(const void* source, float* out, std::int64_t count) {
  widen_all<S>(
      source, out, count,
      [](const void* p) __attribute__((always_inline)) { return S::from_bf16(p); });
}

template <class S>
void f32_to_f16_all(const float* source, void* out, std::int64_t count) {
  narrow_all<S>(
      source, out, count,
      [](typename S::Floats x, void* p) __attribute__((always_inline)) { S::to_f16(x, p); });
}

template <class S>
void f32_to_bf16_all(const float* source, void* out, std::int64_t count) {
  narrow_all<S>(
      source, out, count,
      [](typename S::Floats x, void* p) __attribute__((always_inline)) { S::to_bf16(x, p); });
}

}  // namespace attar::kernels
