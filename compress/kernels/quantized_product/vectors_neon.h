// Sixteen outputs in four NEON vectors, with ARMv8.2's dot products or without.
#pragma once

#include <arm_neon.h>

#include "compress/kernels/quantized_product/layout.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

template <bool kDotProduct>
struct VectorsNeon {
  struct Floats {
    float32x4_t part[4];
  };
  struct Ints {
    int32x4_t part[4];
  };
  template <int kBits>
  using Partial = Ints;
  struct Codes {
    int8x16_t part[4];  // bytes 4 r + j: output r, input j
  };
  static constexpr int kLanes = 16;
  template <int kBits>
  static constexpr int kTokens = 4;
  static constexpr int kPairTokens = 0;  // of two panels side by side; 0: never
  template <int kBits>  // lines of codes of so many bits that a Partial<4> can hold
  static constexpr int kStepsTogether = 8;
  static constexpr std::int64_t kAhead = 1024;

  ATTAR_INLINE void prefetch(const std::uint8_t* from, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(from + i);
  }
  ATTAR_INLINE Codes load_codes(const std::uint8_t* from) {
    Codes codes;
    for (int i = 0; i < 4; ++i) codes.part[i] = vreinterpretq_s8_u8(vld1q_u8(from + 16 * i));
    return codes;
  }
  ATTAR_INLINE Codes low_half(const Codes& codes) {
    Codes low;
    for (int i = 0; i < 4; ++i) low.part[i] = vandq_s8(codes.part[i], vdupq_n_s8(15));
    return low;
  }
  ATTAR_INLINE Codes high_half(const Codes& codes) {
    Codes high;
    for (int i = 0; i < 4; ++i) {
      high.part[i] = vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(codes.part[i]), 4));
    }
    return high;
  }
  // Bits [kFrom, kFrom + kCount) of every byte, put at kTo.
  template <int kFrom, int kCount, int kTo>
  ATTAR_INLINE Codes bits(const Codes& codes) {
    Codes moved;
    for (int i = 0; i < 4; ++i) {
      uint8x16_t part = vreinterpretq_u8_s8(codes.part[i]);
      if constexpr (kFrom > kTo) part = vshrq_n_u8(part, kFrom - kTo);
      if constexpr (kFrom < kTo) part = vshlq_n_u8(part, kTo - kFrom);
      moved.part[i] = vreinterpretq_s8_u8(vandq_u8(part, vdupq_n_u8(((1 << kCount) - 1) << kTo)));
    }
    return moved;
  }
  ATTAR_INLINE Codes merge(Codes a, const Codes& b) {
    for (int i = 0; i < 4; ++i) a.part[i] = vorrq_s8(a.part[i], b.part[i]);
    return a;
  }
  // Signed bytes made unsigned, 128 too high, and those at places 0 .. 15 of them.
  ATTAR_INLINE int8x16_t table(const std::int8_t* points) {
    return veorq_s8(vld1q_s8(points), vdupq_n_s8(-128));
  }
  ATTAR_INLINE Codes look_up(int8x16_t points, Codes places) {
    for (int i = 0; i < 4; ++i) {
      places.part[i] = vqtbl1q_s8(points, vreinterpretq_u8_s8(places.part[i]));
    }
    return places;
  }
  ATTAR_INLINE Ints add_whole(Ints a, const Ints& b) {
    for (int i = 0; i < 4; ++i) a.part[i] = vaddq_s32(a.part[i], b.part[i]);
    return a;
  }
  ATTAR_INLINE Floats whole(const std::uint8_t* signed_bytes) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(signed_bytes));
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints start(const std::int32_t* offset) {
    const int32x4_t first = vdupq_n_s32(kOffset && kBits == 4 ? *offset : 0);
    return {{first, first, first, first}};
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints finish(const Ints& sums, const std::int32_t*) {
    return sums;
  }
  ATTAR_INLINE int32x4_t dot(int32x4_t sums, int8x16_t codes, int8x16_t x) {
#ifdef __ARM_FEATURE_DOTPROD
    if constexpr (kDotProduct) return vdotq_s32(sums, codes, x);
#endif
    const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
    const int16x8_t high = vmull_high_s8(codes, x);
    return vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
  }
  ATTAR_INLINE int8x16_t four(const std::int8_t* x) {
    std::int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
  }
  ATTAR_INLINE Ints dot4(Ints sums, const Codes& codes, const std::int8_t* x) {
    const int8x16_t inputs = four(x);
    for (int i = 0; i < 4; ++i) sums.part[i] = dot(sums.part[i], codes.part[i], inputs);
    return sums;
  }
  // Codes of 8 bits stand 128 too high.
  ATTAR_INLINE Ints dot8(Ints sums, const Codes& codes, const std::int8_t* x) {
    const int8x16_t inputs = four(x);
    for (int i = 0; i < 4; ++i) {
      sums.part[i] = dot(sums.part[i], veorq_s8(codes.part[i], vdupq_n_s8(-128)), inputs);
    }
    return sums;
  }

  ATTAR_INLINE Floats zeros() { return {{}}; }
  ATTAR_INLINE Floats broadcast(const float* x) {
    const float32x4_t all = vld1q_dup_f32(x);
    return {{all, all, all, all}};
  }
  template <bool kHalf>
  ATTAR_INLINE Floats load(const std::uint8_t* from) {
    Floats x;
    for (int i = 0; i < 4; ++i) {
      if constexpr (kHalf) {
        float16x4_t half;
        __builtin_memcpy(&half, from + 8 * i, sizeof half);
        x.part[i] = vcvt_f32_f16(half);
      } else {
        __builtin_memcpy(&x.part[i], from + 16 * i, 16);
      }
    }
    return x;
  }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n) {
    if (n >= kLanes) return load<false>(reinterpret_cast<const std::uint8_t*>(from));
    float lanes[kLanes] = {};
    for (int r = 0; r < n; ++r) lanes[r] = from[r];
    return load<false>(reinterpret_cast<const std::uint8_t*>(lanes));
  }
  ATTAR_INLINE void store_first(float* to, const Floats& x, std::int64_t n) {
    float lanes[kLanes];
    float* const out = n < kLanes ? lanes : to;
    for (int i = 0; i < 4; ++i) vst1q_f32(out + 4 * i, x.part[i]);
    for (int r = 0; out == lanes && r < n; ++r) to[r] = lanes[r];
  }
  ATTAR_INLINE Floats to_floats(const Ints& x) {
    Floats y;
    for (int i = 0; i < 4; ++i) y.part[i] = vcvtq_f32_s32(x.part[i]);
    return y;
  }
  ATTAR_INLINE Floats add(Floats a, const Floats& b) {
    for (int i = 0; i < 4; ++i) a.part[i] = vaddq_f32(a.part[i], b.part[i]);
    return a;
  }
  ATTAR_INLINE Floats mul(Floats a, const Floats& b) {
    for (int i = 0; i < 4; ++i) a.part[i] = vmulq_f32(a.part[i], b.part[i]);
    return a;
  }
  ATTAR_INLINE Floats fused(const Floats& a, const Floats& b, Floats c) {
    for (int i = 0; i < 4; ++i) c.part[i] = vfmaq_f32(c.part[i], a.part[i], b.part[i]);
    return c;
  }
  ATTAR_INLINE Floats fused_negated(const Floats& a, const Floats& b, Floats c) {
    for (int i = 0; i < 4; ++i) c.part[i] = vfmsq_f32(c.part[i], a.part[i], b.part[i]);
    return c;
  }

  ATTAR_INLINE std::uint32_t largest_magnitude(const float* x) {
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < 8; ++i) {
      const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + 4 * i));
      largest = vmaxq_u32(largest, vandq_u32(bits, vdupq_n_u32(0x7fffffff)));
    }
    return vmaxvq_u32(largest);
  }
  ATTAR_INLINE std::int32_t round_block(const float* x, float factor, std::int8_t* out,
                                        bool counts) {
    if (!counts) {
      vst1q_s8(out, vdupq_n_s8(0));
      vst1q_s8(out + 16, vdupq_n_s8(0));
      return 0;
    }
    int16x8_t sums = vdupq_n_s16(0);
    for (int i = 0; i < 2; ++i) {
      int16x4_t words[4];
      for (int k = 0; k < 4; ++k) {
        const float32x4_t scaled = vmulq_n_f32(vld1q_f32(x + 16 * i + 4 * k), factor);
        words[k] = vqmovn_s32(vcvtnq_s32_f32(scaled));
      }
      const int16x8_t low = vcombine_s16(words[0], words[1]);
      const int16x8_t high = vcombine_s16(words[2], words[3]);
      vst1q_s8(out + 16 * i, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
      sums = vaddq_s16(sums, vaddq_s16(low, high));
    }
    return vaddlvq_s16(sums);
  }
};

}  // namespace attar::kernels
