// Eight floats by AVX2, FMA and F16C. For files compiled with those flags only.
// The members are those of simd/portable.h, where they are explained.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

struct Avx2 {
  typedef __m256 Floats;
  typedef __m256 Mask;
  struct Doubles {
    __m256d low, high;
  };

  static constexpr int kWidth = 8;
  static constexpr int kBlockRows = 6;
  static constexpr int kBlockVectors = 2;
  static constexpr int kTileRows = 6;

  ATTAR_INLINE __m256i first_lanes(std::int64_t n) {
    const int count = n < 0 ? 0 : n > 8 ? 8 : static_cast<int>(n);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  ATTAR_INLINE Floats broadcast(float x) { return _mm256_set1_ps(x); }
  ATTAR_INLINE Floats load(const float* from) { return _mm256_loadu_ps(from); }
  ATTAR_INLINE void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n, float fill) {
    const __m256i lanes = first_lanes(n);
    return _mm256_blendv_ps(broadcast(fill), _mm256_maskload_ps(from, lanes),
                            _mm256_castsi256_ps(lanes));
  }
  ATTAR_INLINE void store_first(float* to, Floats x, std::int64_t n) {
    _mm256_maskstore_ps(to, first_lanes(n), x);
  }
  ATTAR_INLINE Floats keep_first(Floats x, std::int64_t n, float fill) {
    return _mm256_blendv_ps(broadcast(fill), x, _mm256_castsi256_ps(first_lanes(n)));
  }
  ATTAR_INLINE Floats from_bytes(const std::uint8_t* codes) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
  }

  ATTAR_INLINE void to_bytes(Floats x, std::uint8_t* codes) {
    const __m256i whole = _mm256_cvttps_epi32(x);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm_packus_epi16(words, words));
  }

  ATTAR_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  ATTAR_INLINE Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  ATTAR_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  ATTAR_INLINE Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  ATTAR_INLINE Floats mul_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  ATTAR_INLINE Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  ATTAR_INLINE Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  ATTAR_INLINE Floats abs(Floats x) { return _mm256_andnot_ps(broadcast(-0.0f), x); }
  ATTAR_INLINE Mask less(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  ATTAR_INLINE Mask equal(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
  ATTAR_INLINE Floats select(Mask where, Floats a, Floats b) {
    return _mm256_blendv_ps(b, a, where);
  }
  ATTAR_INLINE unsigned bits(Mask m) { return static_cast<unsigned>(_mm256_movemask_ps(m)); }
  ATTAR_INLINE Floats round(Floats x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  ATTAR_INLINE Floats scale_by_power(Floats x, Floats n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const __m256i rest = _mm256_sub_epi32(whole, half);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return mul(mul(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
  }

  ATTAR_INLINE float sum(Floats x) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  ATTAR_INLINE float largest(Floats x) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

  ATTAR_INLINE Doubles widen(Floats x) {
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
            _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))};
  }
  ATTAR_INLINE Doubles spread(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
  ATTAR_INLINE Doubles add(Doubles a, Doubles b) {
    return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
  }
  ATTAR_INLINE Doubles sub(Doubles a, Doubles b) {
    return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
  }
  ATTAR_INLINE Doubles mul(Doubles a, Doubles b) {
    return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
  }
  ATTAR_INLINE double sum(Doubles x) {
    const __m256d four = _mm256_add_pd(x.low, x.high);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }

  ATTAR_INLINE void transpose_four(const float* from, std::int64_t from_stride, float* to,
                                   std::int64_t to_stride) {
    __m256 row[4];
    for (int i = 0; i < 4; ++i) {
      row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + i * from_stride)),
                                    _mm_loadu_ps(from + (i + 4) * from_stride), 1);
    }
    const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]);
    const __m256 c = _mm256_unpacklo_ps(row[2], row[3]), d = _mm256_unpackhi_ps(row[2], row[3]);
    store(to, _mm256_shuffle_ps(a, c, 0x44));
    store(to + to_stride, _mm256_shuffle_ps(a, c, 0xee));
    store(to + 2 * to_stride, _mm256_shuffle_ps(b, d, 0x44));
    store(to + 3 * to_stride, _mm256_shuffle_ps(b, d, 0xee));
  }

  ATTAR_INLINE __m128i load_halves(const void* source) {
    return _mm_loadu_si128(static_cast<const __m128i*>(source));
  }
  ATTAR_INLINE Floats from_f16(const void* source) { return _mm256_cvtph_ps(load_halves(source)); }
  ATTAR_INLINE void to_f16(Floats x, void* out) {
    _mm_storeu_si128(static_cast<__m128i*>(out), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
  ATTAR_INLINE Floats from_bf16(const void* source) {
    const __m256i wide = _mm256_cvtepu16_epi32(load_halves(source));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  ATTAR_INLINE void to_bf16(Floats x, void* out) {
    const __m256i word = _mm256_castps_si256(x);
    const __m256i top = _mm256_srli_epi32(word, 16);
    const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i nearest = _mm256_srli_epi32(_mm256_add_epi32(word, bias), 16);
    const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    const __m256i number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
    const __m256i kept = _mm256_blendv_epi8(quiet, nearest, number);
    const __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
    _mm_storeu_si128(static_cast<__m128i*>(out), packed);
  }
};

}  // namespace attar::kernels
