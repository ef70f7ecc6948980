// The bytes of blocks, written. Inlined into every instruction set's encoder, whose compiler makes
// vectors of these loops.
#pragma once

#include "compress/kernels/ggml_blocks/block_parts.h"

namespace attar::kernels {

ATTAR_INLINE void write_f16(float value, std::uint8_t* to) {
  const std::uint16_t half = f16_bits(value);
  to[0] = static_cast<std::uint8_t>(half & 0xff);
  to[1] = static_cast<std::uint8_t>(half >> 8);
}

ATTAR_INLINE std::uint8_t byte_of(int value) { return static_cast<std::uint8_t>(value & 0xff); }

// Low nibbles: the first `width` codes; high ones: the next. Eight at a time as one number.
template <int width>
ATTAR_INLINE void write_nibbles(const std::uint8_t* __restrict codes, std::uint8_t* __restrict to) {
  constexpr std::uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f;
  for (int e = 0; e < width; e += 8) {
    std::uint64_t low, high;
    __builtin_memcpy(&low, codes + e, 8);
    __builtin_memcpy(&high, codes + width + e, 8);
    low = (low & kNibbles) | (high & kNibbles) << 4;
    __builtin_memcpy(to + e, &low, 8);
  }
}

ATTAR_INLINE void write_small(GgmlBlock type, const BlockParts& parts, std::uint8_t* to) {
  const GgmlBlockInfo info = info_of(type);
  write_f16(parts.d, to);
  to += 2;
  if (type == GgmlBlock::q8_0) {
    for (int e = 0; e < 32; ++e) to[e] = parts.codes[e] ^ 0x80;
    return;
  }
  if (info.minimum) {
    write_f16(parts.m, to);
    to += 2;
  }
  if (info.top == 31) {
    std::uint32_t fifth = 0;
    for (int e = 0; e < 32; ++e) fifth |= static_cast<std::uint32_t>(parts.codes[e] >> 4 & 1) << e;
    for (int i = 0; i < 4; ++i) to[i] = static_cast<std::uint8_t>(fifth >> (8 * i) & 0xff);
    to += 4;
  }
  write_nibbles<16>(parts.codes, to);
}

// Two bits a code: code 32 j + l of each half of the block lies in byte l, at bit 2 j.
ATTAR_INLINE void write_pairs(const std::uint8_t* __restrict codes, int shift,
                              std::uint8_t* __restrict to) {
  for (int half = 0; half < 2; ++half, codes += 128, to += 32) {
    for (int l = 0; l < 32; ++l) {
      int byte = 0;
      for (int j = 0; j < 4; ++j) byte |= (codes[32 * j + l] >> shift & 3) << (2 * j);
      to[l] = byte_of(byte);
    }
  }
}

// Bit `bit` of the code 32 s + l lies in byte l, at bit s.
ATTAR_INLINE void write_bits(const std::uint8_t* __restrict codes, int bit,
                             std::uint8_t* __restrict to) {
  for (int l = 0; l < 32; ++l) {
    int byte = 0;
    for (int s = 0; s < 8; ++s) byte |= (codes[32 * s + l] >> bit & 1) << s;
    to[l] = byte_of(byte);
  }
}

// Eight pairs of 6-bit numbers in 12 bytes.
ATTAR_INLINE void write_six(const std::int8_t* a, const std::int8_t* b, std::uint8_t* to) {
  for (int s = 0; s < 4; ++s) {
    to[s] = byte_of((a[s] & 63) | (a[s + 4] & 63) >> 4 << 6);
    to[s + 4] = byte_of((b[s] & 63) | (b[s + 4] & 63) >> 4 << 6);
    to[s + 8] = byte_of((a[s + 4] & 15) | (b[s + 4] & 15) << 4);
  }
}

ATTAR_INLINE void write_q2_k(const BlockParts& parts, std::uint8_t* to) {
  for (int s = 0; s < 16; ++s) to[s] = byte_of((parts.a[s] & 15) | (parts.b[s] & 15) << 4);
  write_pairs(parts.codes, 0, to + 16);
  write_f16(parts.d, to + 80);
  write_f16(parts.m, to + 82);
}

ATTAR_INLINE void write_q3_k(const BlockParts& parts, std::uint8_t* to) {
  write_bits(parts.codes, 2, to);
  write_pairs(parts.codes, 0, to + 32);
  std::uint8_t* scales = to + 96;
  __builtin_memset(scales, 0, 12);
  for (int s = 0; s < 16; ++s) {
    const int six = parts.a[s] + 32;
    scales[s % 8] = byte_of(scales[s % 8] | (six & 15) << (s < 8 ? 0 : 4));
    scales[8 + s % 4] = byte_of(scales[8 + s % 4] | six >> 4 << (2 * (s / 4)));
  }
  write_f16(parts.d, to + 108);
}

ATTAR_INLINE void write_q4_k(const BlockParts& parts, bool fifth, std::uint8_t* to) {
  write_f16(parts.d, to);
  write_f16(parts.m, to + 2);
  write_six(parts.a, parts.b, to + 4);
  if (fifth) write_bits(parts.codes, 4, to + 16);
  std::uint8_t* nibbles = to + (fifth ? 48 : 16);
  for (int i = 0; i < 4; ++i) write_nibbles<32>(parts.codes + 64 * i, nibbles + 32 * i);
}

ATTAR_INLINE void write_q6_k(const BlockParts& parts, std::uint8_t* to) {
  for (int half = 0; half < 2; ++half) {
    write_nibbles<64>(parts.codes + 128 * half, to + 64 * half);
  }
  write_pairs(parts.codes, 4, to + 128);
  __builtin_memcpy(to + 192, parts.a, 16);
  write_f16(parts.d, to + 208);
}

ATTAR_INLINE void write_iq4_xs(const BlockParts& parts, std::uint8_t* to) {
  write_f16(parts.d, to);
  int high = 0;
  for (int s = 0; s < 8; ++s) high |= (parts.a[s] + 32) >> 4 << (2 * s);
  to[2] = byte_of(high);
  to[3] = byte_of(high >> 8);
  for (int i = 0; i < 4; ++i) {
    to[4 + i] = byte_of(((parts.a[2 * i] + 32) & 15) | ((parts.a[2 * i + 1] + 32) & 15) << 4);
  }
  for (int s = 0; s < 8; ++s) write_nibbles<16>(parts.codes + 32 * s, to + 8 + 16 * s);
}

ATTAR_INLINE void write_parts(GgmlBlock type, const BlockParts& parts, std::uint8_t* to) {
  switch (type) {
    case GgmlBlock::q2_k:
      return write_q2_k(parts, to);
    case GgmlBlock::q3_k:
      return write_q3_k(parts, to);
    case GgmlBlock::q4_k:
      return write_q4_k(parts, false, to);
    case GgmlBlock::q5_k:
      return write_q4_k(parts, true, to);
    case GgmlBlock::q6_k:
      return write_q6_k(parts, to);
    case GgmlBlock::iq4_xs:
      return write_iq4_xs(parts, to);
    default:
      return write_small(type, parts, to);
  }
}

}  // namespace attar::kernels
