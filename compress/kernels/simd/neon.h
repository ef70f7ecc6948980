// Four floats by NEON, ARMv8's vectors. The members are those of simd/portable.h, where they are
// explained.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

struct Neon {
  typedef float32x4_t Floats;
  typedef uint32x4_t Mask;
  struct Doubles {
    float64x2_t low, high;
  };

  static constexpr int kWidth = 4;
  static constexpr int kBlockRows = 6;
  static constexpr int kBlockVectors = 4;
  static constexpr int kTileRows = 12;

  ATTAR_INLINE Mask first_lanes(std::int64_t n) {
    const uint32x4_t lane = {0, 1, 2, 3};
    return vcltq_u32(lane, vdupq_n_u32(n < 0 ? 0 : n > 4 ? 4 : static_cast<std::uint32_t>(n)));
  }

  ATTAR_INLINE Floats broadcast(float x) { return vdupq_n_f32(x); }
  ATTAR_INLINE Floats load(const float* from) { return vld1q_f32(from); }
  ATTAR_INLINE void store(float* to, Floats x) { vst1q_f32(to, x); }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n, float fill) {
    float lanes[4] = {fill, fill, fill, fill};
    for (int i = 0; i < 4; ++i) {
      if (i < n) lanes[i] = from[i];
    }
    return vld1q_f32(lanes);
  }
  ATTAR_INLINE void store_first(float* to, Floats x, std::int64_t n) {
    float lanes[4];
    vst1q_f32(lanes, x);
    for (int i = 0; i < 4; ++i) {
      if (i < n) to[i] = lanes[i];
    }
  }
  ATTAR_INLINE Floats keep_first(Floats x, std::int64_t n, float fill) {
    return vbslq_f32(first_lanes(n), x, broadcast(fill));
  }
  ATTAR_INLINE Floats from_bytes(const std::uint8_t* codes) {
    std::uint32_t four;
    __builtin_memcpy(&four, codes, sizeof four);
    const uint16x8_t words = vmovl_u8(vcreate_u8(four));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(words)));
  }
  ATTAR_INLINE void to_bytes(Floats x, std::uint8_t* codes) {
    const uint16x4_t words = vmovn_u32(vcvtq_u32_f32(x));
    const std::uint32_t four =
        vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
    __builtin_memcpy(codes, &four, sizeof four);
  }

  ATTAR_INLINE Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
  ATTAR_INLINE Floats sub(Floats a, Floats b) { return vsubq_f32(a, b); }
  ATTAR_INLINE Floats mul(Floats a, Floats b) { return vmulq_f32(a, b); }
  ATTAR_INLINE Floats div(Floats a, Floats b) { return vdivq_f32(a, b); }
  ATTAR_INLINE Floats mul_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  // Not vminq and vmaxq, which give NaN where either is NaN.
  ATTAR_INLINE Floats min(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  ATTAR_INLINE Floats max(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  ATTAR_INLINE Floats abs(Floats x) { return vabsq_f32(x); }
  ATTAR_INLINE Mask less(Floats a, Floats b) { return vcltq_f32(a, b); }
  ATTAR_INLINE Mask equal(Floats a, Floats b) { return vceqq_f32(a, b); }
  ATTAR_INLINE Floats select(Mask where, Floats a, Floats b) { return vbslq_f32(where, a, b); }
  ATTAR_INLINE unsigned bits(Mask m) {
    const uint32x4_t weight = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(m, weight));
  }
  ATTAR_INLINE Floats round(Floats x) { return vrndnq_f32(x); }
  ATTAR_INLINE Floats scale_by_power(Floats x, Floats n) {
    const int32x4_t whole = vcvtq_s32_f32(n), bias = vdupq_n_s32(127);
    const int32x4_t half = vshrq_n_s32(whole, 1), rest = vsubq_s32(whole, half);
    const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t second = vshlq_n_s32(vaddq_s32(rest, bias), 23);
    return mul(mul(x, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
  }

  ATTAR_INLINE float sum(Floats x) {
    const float32x2_t two = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  ATTAR_INLINE float largest(Floats x) {
    const float32x2_t low = vget_low_f32(x), high = vget_high_f32(x);
    const float32x2_t two = vbsl_f32(vcgt_f32(low, high), low, high);
    const float a = vget_lane_f32(two, 0), b = vget_lane_f32(two, 1);
    return a > b ? a : b;
  }

  ATTAR_INLINE Doubles widen(Floats x) {
    return {vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)};
  }
  ATTAR_INLINE Doubles spread(double x) { return {vdupq_n_f64(x), vdupq_n_f64(x)}; }
  ATTAR_INLINE Doubles add(Doubles a, Doubles b) {
    return {vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)};
  }
  ATTAR_INLINE Doubles sub(Doubles a, Doubles b) {
    return {vsubq_f64(a.low, b.low), vsubq_f64(a.high, b.high)};
  }
  ATTAR_INLINE Doubles mul(Doubles a, Doubles b) {
    return {vmulq_f64(a.low, b.low), vmulq_f64(a.high, b.high)};
  }
  ATTAR_INLINE double sum(Doubles x) { return vaddvq_f64(vaddq_f64(x.low, x.high)); }

  ATTAR_INLINE void transpose_four(const float* from, std::int64_t from_stride, float* to,
                                   std::int64_t to_stride) {
    const float32x4_t a = load(from), b = load(from + from_stride);
    const float32x4_t c = load(from + 2 * from_stride), d = load(from + 3 * from_stride);
    const float32x4_t ac = vzip1q_f32(a, c), bd = vzip1q_f32(b, d);
    store(to, vzip1q_f32(ac, bd));
    store(to + to_stride, vzip2q_f32(ac, bd));
    const float32x4_t ac_high = vzip2q_f32(a, c), bd_high = vzip2q_f32(b, d);
    store(to + 2 * to_stride, vzip1q_f32(ac_high, bd_high));
    store(to + 3 * to_stride, vzip2q_f32(ac_high, bd_high));
  }

  ATTAR_INLINE uint16x4_t load_halves(const void* source) {
    uint16x4_t halves;
    __builtin_memcpy(&halves, source, sizeof halves);
    return halves;
  }
  ATTAR_INLINE void store_halves(uint16x4_t halves, void* out) {
    __builtin_memcpy(out, &halves, sizeof halves);
  }
  ATTAR_INLINE Floats from_f16(const void* source) {
    return vcvt_f32_f16(vreinterpret_f16_u16(load_halves(source)));
  }
  ATTAR_INLINE void to_f16(Floats x, void* out) {
    store_halves(vreinterpret_u16_f16(vcvt_f16_f32(x)), out);
  }
  ATTAR_INLINE Floats from_bf16(const void* source) {
    return vreinterpretq_f32_u32(vshll_n_u16(load_halves(source), 16));
  }
  ATTAR_INLINE void to_bf16(Floats x, void* out) {
    const uint32x4_t word = vreinterpretq_u32_f32(x), top = vshrq_n_u32(word, 16);
    const uint32x4_t odd = vandq_u32(top, vdupq_n_u32(1));
    const uint32x4_t nearest =
        vshrq_n_u32(vaddq_u32(word, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
    const uint32x4_t quiet = vorrq_u32(top, vdupq_n_u32(0x40));
    store_halves(vmovn_u32(vbslq_u32(vceqq_f32(x, x), nearest, quiet)), out);
  }
};

}  // namespace attar::kernels
