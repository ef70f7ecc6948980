// Sixteen floats by AVX-512 (F, BW, VL, DQ). For files compiled with those flags only.
// The members are those of simd/portable.h, where they are explained.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

struct Avx512 {
  typedef __m512 Floats;
  typedef __mmask16 Mask;
  struct Doubles {
    __m512d low, high;
  };

  static constexpr int kWidth = 16;
  static constexpr int kBlockRows = 6;
  static constexpr int kBlockVectors = 4;
  static constexpr int kTileRows = 14;

  ATTAR_INLINE Mask first_lanes(std::int64_t n) {
    return static_cast<Mask>(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
  }

  ATTAR_INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
  ATTAR_INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
  ATTAR_INLINE void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n, float fill) {
    return _mm512_mask_loadu_ps(broadcast(fill), first_lanes(n), from);
  }
  ATTAR_INLINE void store_first(float* to, Floats x, std::int64_t n) {
    _mm512_mask_storeu_ps(to, first_lanes(n), x);
  }
  ATTAR_INLINE Floats keep_first(Floats x, std::int64_t n, float fill) {
    return _mm512_mask_mov_ps(broadcast(fill), first_lanes(n), x);
  }
  ATTAR_INLINE Floats from_bytes(const std::uint8_t* codes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }

  ATTAR_INLINE void to_bytes(Floats x, std::uint8_t* codes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes),
                     _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(x)));
  }

  ATTAR_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  ATTAR_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  ATTAR_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  ATTAR_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  ATTAR_INLINE Floats mul_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  ATTAR_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  ATTAR_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  ATTAR_INLINE Floats abs(Floats x) { return _mm512_abs_ps(x); }
  ATTAR_INLINE Mask less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  ATTAR_INLINE Mask equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  ATTAR_INLINE Floats select(Mask where, Floats a, Floats b) {
    return _mm512_mask_blend_ps(where, b, a);
  }
  ATTAR_INLINE unsigned bits(Mask m) { return m; }
  ATTAR_INLINE Floats round(Floats x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  ATTAR_INLINE Floats scale_by_power(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }

  ATTAR_INLINE float sum(Floats x) { return _mm512_reduce_add_ps(x); }
  ATTAR_INLINE float largest(Floats x) { return _mm512_reduce_max_ps(x); }

  ATTAR_INLINE Doubles widen(Floats x) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
  }
  ATTAR_INLINE Doubles spread(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
  ATTAR_INLINE Doubles add(Doubles a, Doubles b) {
    return {_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
  }
  ATTAR_INLINE Doubles sub(Doubles a, Doubles b) {
    return {_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)};
  }
  ATTAR_INLINE Doubles mul(Doubles a, Doubles b) {
    return {_mm512_mul_pd(a.low, b.low), _mm512_mul_pd(a.high, b.high)};
  }
  ATTAR_INLINE double sum(Doubles x) { return _mm512_reduce_add_pd(_mm512_add_pd(x.low, x.high)); }

  ATTAR_INLINE void transpose_four(const float* from, std::int64_t from_stride, float* to,
                                   std::int64_t to_stride) {
    __m512 row[4];
    for (int i = 0; i < 4; ++i) {
      const float* at = from + i * from_stride;
      const std::int64_t step = 4 * from_stride;
      row[i] = _mm512_broadcast_f32x4(_mm_loadu_ps(at));
      row[i] = _mm512_mask_broadcast_f32x4(row[i], 0x00f0, _mm_loadu_ps(at + step));
      row[i] = _mm512_mask_broadcast_f32x4(row[i], 0x0f00, _mm_loadu_ps(at + 2 * step));
      row[i] = _mm512_mask_broadcast_f32x4(row[i], 0xf000, _mm_loadu_ps(at + 3 * step));
    }
    const __m512 a = _mm512_unpacklo_ps(row[0], row[1]), b = _mm512_unpackhi_ps(row[0], row[1]);
    const __m512 c = _mm512_unpacklo_ps(row[2], row[3]), d = _mm512_unpackhi_ps(row[2], row[3]);
    store(to, _mm512_shuffle_ps(a, c, 0x44));
    store(to + to_stride, _mm512_shuffle_ps(a, c, 0xee));
    store(to + 2 * to_stride, _mm512_shuffle_ps(b, d, 0x44));
    store(to + 3 * to_stride, _mm512_shuffle_ps(b, d, 0xee));
  }

  ATTAR_INLINE __m256i load_halves(const void* source) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(source));
  }
  ATTAR_INLINE Floats from_f16(const void* source) { return _mm512_cvtph_ps(load_halves(source)); }
  ATTAR_INLINE void to_f16(Floats x, void* out) {
    _mm256_storeu_si256(static_cast<__m256i*>(out), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
  ATTAR_INLINE Floats from_bf16(const void* source) {
    const __m512i wide = _mm512_cvtepu16_epi32(load_halves(source));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  ATTAR_INLINE void to_bf16(Floats x, void* out) {
    const __m512i word = _mm512_castps_si512(x);
    const __m512i top = _mm512_srli_epi32(word, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i nearest = _mm512_srli_epi32(_mm512_add_epi32(word, bias), 16);
    const __m512i quiet = _mm512_or_si512(top, _mm512_set1_epi32(0x40));
    const Mask number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
    const __m512i kept = _mm512_mask_blend_epi32(number, quiet, nearest);
    _mm256_storeu_si256(static_cast<__m256i*>(out), _mm512_cvtepi32_epi16(kept));
  }
};

}  // namespace attar::kernels
