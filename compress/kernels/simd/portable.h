// Vectors for any processor: four floats by the compiler's vector extension. The kernel bodies are
// templates over this struct and its siblings, which carry the same members.
#pragma once

#include <cstdint>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

struct Portable {
  typedef float Floats __attribute__((vector_size(16)));
  typedef std::int32_t Ints __attribute__((vector_size(16)));
  typedef double Half __attribute__((vector_size(16)));
  typedef Ints Mask;
  struct Doubles {
    Half low, high;
  };

  static constexpr int kWidth = 4;
  static constexpr int kBlockRows = 4;     // register block of the matrix kernels: rows ...
  static constexpr int kBlockVectors = 2;  // ... by vectors
  static constexpr int kTileRows = 4;      // rows by two vectors in packed_product

  ATTAR_INLINE Floats broadcast(float x) { return Floats{x, x, x, x}; }
  ATTAR_INLINE Floats load(const float* from) {
    Floats x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
  }
  ATTAR_INLINE void store(float* to, Floats x) { __builtin_memcpy(to, &x, sizeof x); }
  // The first n lanes from memory, the others `fill`; memory after them is not touched.
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n, float fill) {
    Floats x = broadcast(fill);
    for (int i = 0; i < kWidth; ++i) {
      if (i < n) x[i] = from[i];
    }
    return x;
  }
  ATTAR_INLINE void store_first(float* to, Floats x, std::int64_t n) {
    for (int i = 0; i < kWidth; ++i) {
      if (i < n) to[i] = x[i];
    }
  }
  ATTAR_INLINE Floats keep_first(Floats x, std::int64_t n, float fill) {
    for (int i = 0; i < kWidth; ++i) {
      if (i >= n) x[i] = fill;
    }
    return x;
  }
  ATTAR_INLINE Floats from_bytes(const std::uint8_t* codes) {
    Floats x = {float(codes[0]), float(codes[1]), float(codes[2]), float(codes[3])};
    return x;
  }

  // kWidth bytes: the whole parts of x, each in [0, 255].
  ATTAR_INLINE void to_bytes(Floats x, std::uint8_t* codes) {
    const Ints whole = __builtin_convertvector(x, Ints);
    for (int i = 0; i < kWidth; ++i) codes[i] = static_cast<std::uint8_t>(whole[i]);
  }

  ATTAR_INLINE Floats add(Floats a, Floats b) { return a + b; }
  ATTAR_INLINE Floats sub(Floats a, Floats b) { return a - b; }
  ATTAR_INLINE Floats mul(Floats a, Floats b) { return a * b; }
  ATTAR_INLINE Floats div(Floats a, Floats b) { return a / b; }
  ATTAR_INLINE Floats mul_add(Floats a, Floats b, Floats c) { return a * b + c; }
  // Both give b where a is NaN or b is NaN.
  ATTAR_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }
  ATTAR_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
  ATTAR_INLINE Floats abs(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
  ATTAR_INLINE Mask less(Floats a, Floats b) { return a < b; }
  ATTAR_INLINE Mask equal(Floats a, Floats b) { return a == b; }
  ATTAR_INLINE Floats select(Mask where, Floats a, Floats b) { return where ? a : b; }
  ATTAR_INLINE unsigned bits(Mask m) {
    return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | unsigned(m[3] & 8);
  }
  // Nearest whole number, ties to even, for |x| < 2^22.
  ATTAR_INLINE Floats round(Floats x) {
    const Floats magic = broadcast(12582912.0f);
    return (x + magic) - magic;
  }
  // x * 2^n, rounded once; n whole, |n| <= 252.
  ATTAR_INLINE Floats scale_by_power(Floats x, Floats n) {
    const Ints whole = __builtin_convertvector(n, Ints);
    const Ints half = whole >> 1;
    const Floats first = (Floats)((half + 127) << 23);
    const Floats second = (Floats)((whole - half + 127) << 23);
    return (x * first) * second;
  }

  ATTAR_INLINE float sum(Floats x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  ATTAR_INLINE float largest(Floats x) {
    const float a = x[0] > x[2] ? x[0] : x[2];
    const float b = x[1] > x[3] ? x[1] : x[3];
    return a > b ? a : b;
  }

  ATTAR_INLINE Doubles widen(Floats x) { return {Half{x[0], x[1]}, Half{x[2], x[3]}}; }
  ATTAR_INLINE Doubles spread(double x) { return {Half{x, x}, Half{x, x}}; }
  ATTAR_INLINE Doubles add(Doubles a, Doubles b) { return {a.low + b.low, a.high + b.high}; }
  ATTAR_INLINE Doubles sub(Doubles a, Doubles b) { return {a.low - b.low, a.high - b.high}; }
  ATTAR_INLINE Doubles mul(Doubles a, Doubles b) { return {a.low * b.low, a.high * b.high}; }
  ATTAR_INLINE double sum(Doubles x) {
    const Half pair = x.low + x.high;
    return pair[0] + pair[1];
  }

  // to[i * to_stride + j] = from[j * from_stride + i], i < 4, j < kWidth.
  ATTAR_INLINE void transpose_four(const float* from, std::int64_t from_stride, float* to,
                                   std::int64_t to_stride) {
    for (int i = 0; i < 4; ++i) {
      store(to + i * to_stride, Floats{from[i], from[from_stride + i], from[2 * from_stride + i],
                                       from[3 * from_stride + i]});
    }
  }

  // kWidth 16-bit floats, bits as convert.h promises.
  ATTAR_INLINE Floats from_f16(const void* source) {
    std::uint16_t half[4];
    __builtin_memcpy(half, source, sizeof half);
    return Floats{f16_value(half[0]), f16_value(half[1]), f16_value(half[2]), f16_value(half[3])};
  }
  ATTAR_INLINE void to_f16(Floats x, void* out) {
    const std::uint16_t half[4] = {f16_bits(x[0]), f16_bits(x[1]), f16_bits(x[2]), f16_bits(x[3])};
    __builtin_memcpy(out, half, sizeof half);
  }
  ATTAR_INLINE Floats from_bf16(const void* source) {
    std::uint16_t top[4];
    __builtin_memcpy(top, source, sizeof top);
    return (Floats)(Ints{top[0], top[1], top[2], top[3]} << 16);
  }
  ATTAR_INLINE void to_bf16(Floats x, void* out) {
    typedef std::uint32_t Words __attribute__((vector_size(16)));
    const Words word = (Words)x;
    const Words nearest = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    const Words quiet = (word >> 16) | 0x40u;
    const Words kept = (x == x) ? nearest : quiet;
    for (int i = 0; i < kWidth; ++i) {
      const auto top = static_cast<std::uint16_t>(kept[i]);
      __builtin_memcpy(static_cast<char*>(out) + 2 * i, &top, 2);
    }
  }
};

}  // namespace attar::kernels
