// Keys and values of attention as codes of 8 or 4 bits, each token and head by itself.
//
// A head is first mixed by a Hadamard matrix, which spreads the few channels in which keys are
// large over all of them (Ashkboos et al. 2024, arXiv:2404.00456, section 4); scores stay what they
// are when queries are mixed alike, and means of values when they are mixed once more. Then groups
// of 32 channels get the scale and the minimum of that token's values:
//
//   value = scale code + minimum,   0 <= code < 2^bits
//
// So a token's codes depend on that token alone: read at once, in pieces or one by one, a sequence
// has the same ones.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

inline constexpr std::int64_t kCodedGroup = 32;  // channels that share a scale; the last may be few

ATTAR_INLINE constexpr std::int64_t coded_groups(std::int64_t head_dim) {
  return (head_dim + kCodedGroup - 1) / kCodedGroup;
}

// Bytes of one head of one token: scale and minimum of every group as float16, then the codes group
// after group (of 4 bits: code i in the low half of byte i, code i + n / 2 in the high half, n of
// them in the group).
ATTAR_INLINE constexpr std::int64_t coded_head_bytes(std::int64_t head_dim, int bits) {
  return coded_groups(head_dim) * 4 + head_dim * bits / 8;
}

// Rows of heads, `token_stride` floats from one token to the next.
struct HeadRows {
  std::int64_t token_stride;
  std::int64_t tokens;
  std::int64_t heads;
  std::int64_t head_dim;  // even
};

// Every head times the orthonormal Hadamard matrix of the largest power of two that divides
// head_dim, block after block, in place. Its own inverse.
void mix_channels(float* states, const HeadRows& rows);

// `bits` is 8 or 4. Token t's codes go to out + t * out_stride, its heads one after the other. A
// head with a value that is not finite, or beyond what float16 holds, decodes to no finite number.
// Throws std::invalid_argument for other bits or an odd head_dim.
void code_heads(const float* states, const HeadRows& rows, int bits, std::uint8_t* out,
                std::int64_t out_stride);

// The values of one head, head_dim <= 256. `out` has room up to a multiple of 16. For the bodies of
// kernels; the same bits for every instruction set S: scale times code is exact.
template <class S>
ATTAR_INLINE void decode_head(const std::uint8_t* head, std::int64_t head_dim, int bits,
                              float* out) {
  constexpr int W = S::kWidth;
  constexpr std::int64_t kHalf = kCodedGroup / 2;
  const std::int64_t groups = coded_groups(head_dim);
  alignas(64) std::uint16_t halves[16] = {};
  alignas(64) float parameters[16];
  __builtin_memcpy(halves, head, static_cast<std::size_t>(4 * groups));
  for (std::int64_t i = 0; i < 2 * groups; i += W)
    S::store(parameters + i, S::from_f16(halves + i));
  const std::uint8_t* from = head + 4 * groups;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t left = head_dim - g * kCodedGroup;
    const std::int64_t count = left < kCodedGroup ? left : kCodedGroup;
    alignas(32) std::uint8_t codes[kCodedGroup] = {};
    if (bits == 8) {
      __builtin_memcpy(codes, from, static_cast<std::size_t>(count));
    } else if (count == kCodedGroup) {
      for (std::int64_t i = 0; i < kHalf; ++i) {
        codes[i] = from[i] & 15;
        codes[i + kHalf] = static_cast<std::uint8_t>(from[i] >> 4);
      }
    } else {
      for (std::int64_t i = 0; i < count / 2; ++i) {
        codes[i] = from[i] & 15;
        codes[i + count / 2] = static_cast<std::uint8_t>(from[i] >> 4);
      }
    }
    from += count * bits / 8;
    const auto scale = S::broadcast(parameters[2 * g]),
               minimum = S::broadcast(parameters[2 * g + 1]);
    for (std::int64_t i = 0; i < count; i += W) {
      S::store(out + g * kCodedGroup + i, S::add(S::mul(scale, S::from_bytes(codes + i)), minimum));
    }
  }
}

}  // namespace attar::kernels
