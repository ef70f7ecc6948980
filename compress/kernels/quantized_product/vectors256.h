// Eight outputs side by side on 256-bit vectors, with the dot products of AVX-VNNI or without.
#pragma once

#include <immintrin.h>

#include "compress/kernels/quantized_product/layout.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

template <bool kVnni>
struct Vectors256 {
  typedef __m256 Floats;
  typedef __m256i Ints;
  typedef __m256i Codes;
  // Without VNNI, four bits of a code are multiplied at a time and summed up in 16 bits: 16
  // products of at most 15 * 128 a lane. The high halves are those of codes of 8 bits.
  struct Halves {
    __m256i low, high;
  };
  template <int kBits>
  using Partial = Halves;
  static constexpr int kLanes = 8;
  template <int kBits>
  static constexpr int kTokens = kBits == 4 && !kVnni ? 8 : 4;
  static constexpr int kPairTokens = 0;  // of two panels side by side; 0: never
  template <int kBits>  // lines of codes of so many bits that a Partial<4> can hold
  static constexpr int kStepsTogether = kVnni || kBits <= 4 ? 8
                                        : kBits == 5        ? 4
                                                            : 2;
  static constexpr std::int64_t kAhead = 8192;

  ATTAR_INLINE void prefetch(const std::uint8_t* from, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T0);
    }
  }
  ATTAR_INLINE __m256i load_codes(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  ATTAR_INLINE __m256i low_half(__m256i codes) {
    return _mm256_and_si256(codes, _mm256_set1_epi8(15));
  }
  ATTAR_INLINE __m256i high_half(__m256i codes) {
    return _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15));
  }
  // Bits [kFrom, kFrom + kCount) of every byte, put at kTo.
  template <int kFrom, int kCount, int kTo>
  ATTAR_INLINE __m256i bits(__m256i codes) {
    const __m256i moved = kFrom >= kTo ? _mm256_srli_epi16(codes, kFrom >= kTo ? kFrom - kTo : 0)
                                       : _mm256_slli_epi16(codes, kFrom >= kTo ? 0 : kTo - kFrom);
    return _mm256_and_si256(moved, _mm256_set1_epi8(((1 << kCount) - 1) << kTo));
  }
  ATTAR_INLINE __m256i merge(__m256i a, __m256i b) { return _mm256_or_si256(a, b); }
  // Signed bytes made unsigned, 128 too high, and those at places 0 .. 15 of them.
  ATTAR_INLINE __m256i table(const std::int8_t* points) {
    const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(points));
    return _mm256_broadcastsi128_si256(_mm_xor_si128(all, _mm_set1_epi8(-128)));
  }
  ATTAR_INLINE __m256i look_up(__m256i points, __m256i places) {
    return _mm256_shuffle_epi8(points, places);
  }
  ATTAR_INLINE Ints add_whole(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  ATTAR_INLINE Floats whole(const std::uint8_t* signed_bytes) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(signed_bytes));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  ATTAR_INLINE __m256i four(const std::int8_t* x) {
    std::int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm256_set1_epi32(word);
  }

  template <int kBits>
  ATTAR_INLINE Ints offset_of(const std::int32_t* offset) {
    const __m256i eight = _mm256_set1_epi32(*offset);
    return kBits == 4 ? eight : _mm256_slli_epi32(eight, 4);
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Halves start(const std::int32_t* offset) {
    const __m256i zero = _mm256_setzero_si256();
    return {kVnni && kOffset ? offset_of<kBits>(offset) : zero, zero};
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints finish(const Halves& parts, const std::int32_t* offset) {
    if constexpr (kVnni) return parts.low;
    const auto whole = [](__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); };
    __m256i sums = whole(parts.low);
    if (kBits == 8) sums = _mm256_add_epi32(sums, _mm256_slli_epi32(whole(parts.high), 4));
    return kOffset ? _mm256_add_epi32(sums, offset_of<kBits>(offset)) : sums;
  }
  ATTAR_INLINE __m256i dot(__m256i sums, __m256i codes, __m256i inputs) {
    if constexpr (kVnni) return _mm256_dpbusd_avx_epi32(sums, codes, inputs);
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, inputs));
    // In this order: as a tree of sums they would need more registers than there are.
    __asm__("" : "+x"(sums));
    return sums;
  }
  ATTAR_INLINE Halves dot4(const Halves& sums, __m256i codes, const std::int8_t* x) {
    return {dot(sums.low, codes, four(x)), sums.high};
  }
  ATTAR_INLINE Halves dot8(const Halves& sums, __m256i codes, const std::int8_t* x) {
    const __m256i inputs = four(x);
    if constexpr (kVnni) return {dot(sums.low, codes, inputs), sums.high};
    return {dot(sums.low, low_half(codes), inputs), dot(sums.high, high_half(codes), inputs)};
  }

  ATTAR_INLINE Floats zeros() { return _mm256_setzero_ps(); }
  ATTAR_INLINE Floats broadcast(const float* x) { return _mm256_broadcast_ss(x); }
  template <bool kHalf>
  ATTAR_INLINE Floats load(const std::uint8_t* from) {
    if constexpr (kHalf) {
      return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    return _mm256_loadu_ps(reinterpret_cast<const float*>(from));
  }
  ATTAR_INLINE __m256i first_lanes(std::int64_t n) {
    const int count = n < kLanes ? static_cast<int>(n) : kLanes;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n) {
    return _mm256_maskload_ps(from, first_lanes(n));
  }
  ATTAR_INLINE void store_first(float* to, Floats x, std::int64_t n) {
    _mm256_maskstore_ps(to, first_lanes(n), x);
  }
  ATTAR_INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
  ATTAR_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  ATTAR_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  ATTAR_INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  ATTAR_INLINE Floats fused_negated(Floats a, Floats b, Floats c) {
    return _mm256_fnmadd_ps(a, b, c);
  }

  ATTAR_INLINE std::uint32_t largest_magnitude(const float* x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 8 * i));
      largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, magnitude));
    }
    __m128i half =
        _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(half));
  }
  ATTAR_INLINE std::int32_t round_block(const float* x, float factor, std::int8_t* out,
                                        bool counts) {
    auto* to = reinterpret_cast<__m256i*>(out);
    if (!counts) {
      _mm256_storeu_si256(to, _mm256_setzero_si256());
      return 0;
    }
    const __m256 by = _mm256_set1_ps(factor);
    __m256i part[4];
    for (int i = 0; i < 4; ++i) {
      part[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), by));
    }
    const __m256i low = _mm256_packs_epi32(part[0], part[1]);
    const __m256i high = _mm256_packs_epi32(part[2], part[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(to, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
    const __m256i sums = _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1));
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
  }
};

}  // namespace attar::kernels
