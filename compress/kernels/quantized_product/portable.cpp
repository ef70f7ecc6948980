#include "compress/kernels/convert/f16.h"
#include "compress/kernels/quantized_product/body.h"

namespace attar::kernels {
namespace {

// Any processor: sixteen outputs in plain loops.
struct VectorsPortable {
  static constexpr int kLanes = 16;
  template <int kBits>
  static constexpr int kTokens = 1;
  static constexpr int kPairTokens = 0;
  template <int kBits>
  static constexpr int kStepsTogether = 8;
  static constexpr std::int64_t kAhead = 0;
  struct Floats {
    float lane[kLanes];
  };
  struct Ints {
    std::int32_t lane[kLanes];
  };
  template <int kBits>
  using Partial = Ints;
  struct Codes {
    std::uint8_t byte[64];
  };

  ATTAR_INLINE void prefetch(const std::uint8_t*, std::int64_t) {}
  ATTAR_INLINE Codes load_codes(const std::uint8_t* from) {
    Codes codes;
    __builtin_memcpy(&codes, from, sizeof codes);
    return codes;
  }
  __attribute__((noinline)) static Codes low_half(const Codes& codes) {
    Codes low;
    for (int i = 0; i < 64; ++i) low.byte[i] = codes.byte[i] & 15;
    return low;
  }
  __attribute__((noinline)) static Codes high_half(const Codes& codes) {
    Codes high;
    for (int i = 0; i < 64; ++i) high.byte[i] = codes.byte[i] >> 4;
    return high;
  }
  template <int kFrom, int kCount, int kTo>
  __attribute__((noinline)) static Codes bits(const Codes& codes) {
    Codes moved;
    for (int i = 0; i < 64; ++i) {
      moved.byte[i] =
          static_cast<std::uint8_t>((codes.byte[i] >> kFrom & ((1 << kCount) - 1)) << kTo);
    }
    return moved;
  }
  __attribute__((noinline)) static Codes merge(Codes a, const Codes& b) {
    for (int i = 0; i < 64; ++i) a.byte[i] |= b.byte[i];
    return a;
  }
  ATTAR_INLINE const std::int8_t* table(const std::int8_t* points) { return points; }
  __attribute__((noinline)) static Codes look_up(const std::int8_t* points, Codes places) {
    for (std::uint8_t& byte : places.byte) byte = static_cast<std::uint8_t>(points[byte] + 128);
    return places;
  }
  __attribute__((noinline)) static Ints add_whole(Ints a, const Ints& b) {
    for (int r = 0; r < kLanes; ++r) a.lane[r] += b.lane[r];
    return a;
  }
  __attribute__((noinline)) static Floats whole(const std::uint8_t* signed_bytes) {
    Floats x;
    for (int r = 0; r < kLanes; ++r) x.lane[r] = static_cast<std::int8_t>(signed_bytes[r]);
    return x;
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints start(const std::int32_t* offset) {
    Ints sums;
    for (std::int32_t& sum : sums.lane) sum = kOffset && kBits == 4 ? *offset : 0;
    return sums;
  }
  template <int kBits, bool kOffset>
  ATTAR_INLINE Ints finish(const Ints& sums, const std::int32_t*) {
    return sums;
  }
  // Not inlined: the compiler would unroll a whole block and take a minute for it.
  __attribute__((noinline)) static Ints dot4(Ints sums, const Codes& codes, const std::int8_t* x) {
    for (int r = 0; r < kLanes; ++r) {
      for (int j = 0; j < 4; ++j) sums.lane[r] += codes.byte[4 * r + j] * x[j];
    }
    return sums;
  }
  __attribute__((noinline)) static Ints dot8(Ints sums, const Codes& codes, const std::int8_t* x) {
    for (int r = 0; r < kLanes; ++r) {
      for (int j = 0; j < 4; ++j) sums.lane[r] += (codes.byte[4 * r + j] - 128) * x[j];
    }
    return sums;
  }

  ATTAR_INLINE Floats zeros() { return {}; }
  ATTAR_INLINE Floats broadcast(const float* x) {
    Floats all;
    for (float& value : all.lane) value = *x;
    return all;
  }
  template <bool kHalf>
  __attribute__((noinline)) static Floats load(const std::uint8_t* from) {
    Floats x;
    for (int r = 0; r < kLanes; ++r) {
      if constexpr (kHalf) {
        std::uint16_t half;
        __builtin_memcpy(&half, from + 2 * r, 2);
        x.lane[r] = f16_value(half);
      } else {
        __builtin_memcpy(&x.lane[r], from + 4 * r, 4);
      }
    }
    return x;
  }
  ATTAR_INLINE Floats load_first(const float* from, std::int64_t n) {
    Floats x = {};
    for (int r = 0; r < kLanes && r < n; ++r) x.lane[r] = from[r];
    return x;
  }
  ATTAR_INLINE void store_first(float* to, const Floats& x, std::int64_t n) {
    for (int r = 0; r < kLanes && r < n; ++r) to[r] = x.lane[r];
  }
  ATTAR_INLINE Floats to_floats(const Ints& x) {
    Floats y;
    for (int r = 0; r < kLanes; ++r) y.lane[r] = static_cast<float>(x.lane[r]);
    return y;
  }
  ATTAR_INLINE Floats add(const Floats& a, const Floats& b) {
    Floats c;
    for (int r = 0; r < kLanes; ++r) c.lane[r] = a.lane[r] + b.lane[r];
    return c;
  }
  ATTAR_INLINE Floats mul(const Floats& a, const Floats& b) {
    Floats c;
    for (int r = 0; r < kLanes; ++r) c.lane[r] = a.lane[r] * b.lane[r];
    return c;
  }
  __attribute__((noinline)) static Floats fused(const Floats& a, const Floats& b, const Floats& c) {
    Floats d;
    for (int r = 0; r < kLanes; ++r) d.lane[r] = __builtin_fmaf(a.lane[r], b.lane[r], c.lane[r]);
    return d;
  }
  __attribute__((noinline)) static Floats fused_negated(const Floats& a, const Floats& b,
                                                        const Floats& c) {
    Floats d;
    for (int r = 0; r < kLanes; ++r) d.lane[r] = __builtin_fmaf(-a.lane[r], b.lane[r], c.lane[r]);
    return d;
  }

  ATTAR_INLINE std::uint32_t largest_magnitude(const float* x) {
    std::uint32_t largest = 0;
    for (int k = 0; k < kBlockInputs; ++k) {
      const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x[k]) & 0x7fffffffu;
      largest = bits > largest ? bits : largest;
    }
    return largest;
  }
  ATTAR_INLINE std::int32_t round_block(const float* x, float factor, std::int8_t* out,
                                        bool counts) {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: its sum is rounded to a whole number
    std::int32_t sum = 0;
    for (int k = 0; k < kBlockInputs; ++k) {
      const float whole = counts ? (x[k] * factor + kMagic) - kMagic : 0.0f;
      out[k] = static_cast<std::int8_t>(whole);
      sum += out[k];
    }
    return sum;
  }
};

}  // namespace

// Named for the table, which knows no vectors.
void quantized_product_portable(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<VectorsPortable>(call, task);
}
void round_rows_portable(const RoundRows& call, std::int64_t begin, std::int64_t end) {
  round_row_range<VectorsPortable>(call, begin, end);
}

}  // namespace attar::kernels
