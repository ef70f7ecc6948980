// Sixteen outputs side by side on 512-bit vectors with AVX-512 VNNI.
#pragma once

#include <immintrin.h>

#include "compress/kernels/quantized_product/layout.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

struct Vectors512 {
  typedef __m512 Floats;
  typedef __m512i Ints;
  typedef __m512i Codes;
  template <int kBits>
  using Partial = Ints;
  static constexpr int kLanes = 16;
  template <int kBits>
  static constexpr int kTokens = 8;
  static constexpr int kPairTokens = 4;  // of two panels side by side; 0: never
  template <int kBits>  // lines of codes of so many bits that a Partial<4> can hold
  static constexpr int kStepsTogether = 8;
  static constexpr std::int64_t kAhead = 8192;

  ATTAR_INLINE void prefetch(const std::uint8_t* from, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T0);
    }
  }
  ATTAR_INLINE __m512i load_codes(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
  ATTAR_INLINE __m512i low_half(__m512i codes) {
    return _mm512_and_si512(codes, _mm512_set1_epi8(15));
  }
  ATTAR_INLINE __m512i high_half(__m512i codes) {
    return _mm512_and_si512(_mm512_srli_epi16(codes, 4), _mm512_set1_epi8(15));
  }
  // Bits [kFrom, kFrom + kCount) of every byte, put at kTo.
  template <int kFrom, int kCount, int kTo>
  ATTAR_INLINE __m512i bits(__m512i codes) {
    const __m512i moved = kFrom >= kTo ? _mm512_srli_epi16(codes, kFrom >= kTo ? kFrom - kTo : 0)
                                       : _mm512_slli_epi16(codes, kFrom >= kTo ? 0 : kTo - kFrom);
    return _mm512_and_si512(moved, _mm512_set1_epi8(((1 << kCount) - 1) << kTo));
  }
  ATTAR_INLINE __m512i merge(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
  // Signed bytes made unsigned, 128 too high, and those at places 0 .. 15 of them.
  ATTAR_INLINE __m512i table(const std::int8_t* points) {
    const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(points));
    return _mm512_broadcast_i32x4(_mm_xor_si128(all, _mm_set1_epi8(-128)));
  }
  ATTAR_INLINE __m512i look_up(__m512i points, __m512i places) {
    return _mm512_shuffle_epi8(points, places);
  }
  ATTAR_INLINE Ints add_whole(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  ATTAR_INLINE Floats whole(const std::uint8_t* signed_bytes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(signed_bytes));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  ATTAR_INLINE __m512i four(const std::int8_t* x) {
    std::int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm512_set1_epi32(word);
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints start(const std::int32_t* offset) {
    if constexpr (!kOffset) return _mm512_setzero_si512();
    const __m512i eight = _mm512_set1_epi32(*offset);
    return kBits == 4 ? eight : _mm512_slli_epi32(eight, 4);
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints finish(Ints sums, const std::int32_t*) {
    return sums;
  }
  ATTAR_INLINE Ints dot4(Ints sums, __m512i codes, const std::int8_t* x) {
    return _mm512_dpbusd_epi32(sums, codes, four(x));
  }
  ATTAR_INLINE Ints dot8(Ints sums, __m512i codes, const std::int8_t* x) {
    return _mm512_dpbusd_epi32(sums, codes, four(x));
  }

  ATTAR_INLINE Floats zeros() { return _mm512_setzero_ps(); }
  ATTAR_INLINE Floats broadcast(const float* x) { return _mm512_set1_ps(*x); }
  template <bool kHalf>
  ATTAR_INLINE Floats load(const std::uint8_t* from) {
    if constexpr (kHalf) {
      return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    return _mm512_loadu_ps(from);
  }
  ATTAR_INLINE __mmask16 first_lanes(std::int64_t n) {
    return static_cast<__mmask16>(n >= kLanes ? 0xffffu : (1u << n) - 1u);
  }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), from);
  }
  ATTAR_INLINE void store_first(float* to, Floats x, std::int64_t n) {
    _mm512_mask_storeu_ps(to, first_lanes(n), x);
  }
  ATTAR_INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
  ATTAR_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  ATTAR_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  ATTAR_INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  ATTAR_INLINE Floats fused_negated(Floats a, Floats b, Floats c) {
    return _mm512_fnmadd_ps(a, b, c);
  }

  ATTAR_INLINE std::uint32_t largest_magnitude(const float* x) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i a = _mm512_and_si512(_mm512_loadu_si512(x), magnitude);
    const __m512i b = _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude);
    return static_cast<std::uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(a, b)));
  }
  ATTAR_INLINE std::int32_t round_block(const float* x, float factor, std::int8_t* out,
                                        bool counts) {
    auto* to = reinterpret_cast<__m128i*>(out);
    if (!counts) {
      _mm_storeu_si128(to, _mm_setzero_si128());
      _mm_storeu_si128(to + 1, _mm_setzero_si128());
      return 0;
    }
    const __m512 by = _mm512_set1_ps(factor);
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), by));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), by));
    _mm_storeu_si128(to, _mm512_cvtsepi32_epi8(low));
    _mm_storeu_si128(to + 1, _mm512_cvtsepi32_epi8(high));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
  }
};

}  // namespace attar::kernels
