#include "compress/kernels/ggml_blocks/block_parts.h"

#include <cstring>

namespace attar::kernels {
namespace {

constexpr int kHalf = 16;  // a 4-bit block of 32 holds element e beside element e + 16

constexpr GgmlBlockInfo kInfo[] = {
    {32, 34, 32, 255, 128, false, false, 0, 0},       // Q8_0
    {32, 18, 32, 15, 8, false, false, 0, 0},          // Q4_0
    {32, 20, 32, 15, 0, true, false, 0, 0},           // Q4_1
    {32, 22, 32, 31, 16, false, false, 0, 0},         // Q5_0
    {32, 24, 32, 31, 0, true, false, 0, 0},           // Q5_1
    {32, 18, 32, 15, 0, false, true, 0, 0},           // IQ4_NL
    {256, 84, 16, 3, 0, true, false, 0, 15},          // Q2_K
    {256, 110, 16, 7, 4, false, false, -32, 31},      // Q3_K
    {256, 144, 32, 15, 0, true, false, 0, 63},        // Q4_K
    {256, 176, 32, 31, 0, true, false, 0, 63},        // Q5_K
    {256, 210, 16, 63, 32, false, false, -128, 127},  // Q6_K
    {256, 136, 32, 15, 0, false, true, -32, 31},      // IQ4_XS
};

float read_f16(const std::uint8_t* from) {
  return f16_value(static_cast<std::uint16_t>(from[0] | from[1] << 8));
}

void write_f16(float value, std::uint8_t* to) {
  const std::uint16_t half = f16_bits(value);
  to[0] = static_cast<std::uint8_t>(half & 0xff);
  to[1] = static_cast<std::uint8_t>(half >> 8);
}

std::uint8_t byte_of(int value) { return static_cast<std::uint8_t>(value & 0xff); }

// Low nibbles: the first `width` codes; high ones: the next.
void write_nibbles(const std::uint8_t* codes, int width, std::uint8_t* to) {
  for (int e = 0; e < width; ++e) to[e] = byte_of((codes[e] & 15) | (codes[e + width] & 15) << 4);
}
void read_nibbles(const std::uint8_t* from, int width, std::uint8_t* codes) {
  for (int e = 0; e < width; ++e) {
    codes[e] = from[e] & 15;
    codes[e + width] = from[e] >> 4;
  }
}

// --- Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q8_0 ---

void write_small(GgmlBlock type, const BlockParts& parts, std::uint8_t* to) {
  const GgmlBlockInfo& info = ggml_block_info(type);
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
  write_nibbles(parts.codes, kHalf, to);
}

void read_small(GgmlBlock type, const std::uint8_t* from, BlockParts& parts) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  parts.d = read_f16(from);
  from += 2;
  if (type == GgmlBlock::q8_0) {
    for (int e = 0; e < 32; ++e) parts.codes[e] = from[e] ^ 0x80;
    return;
  }
  if (info.minimum) {
    parts.m = read_f16(from);
    from += 2;
  }
  const std::uint8_t* fifth = from;
  if (info.top == 31) from += 4;
  read_nibbles(from, kHalf, parts.codes);
  if (info.top != 31) return;
  for (int e = 0; e < 32; ++e) {
    parts.codes[e] = static_cast<std::uint8_t>(parts.codes[e] | (fifth[e / 8] >> (e % 8) & 1) << 4);
  }
}

// --- parts that super-blocks share ---

// Two bits a code: code 32 j + l of each half of the block lies in byte l, at bit 2 j.
void write_pairs(const std::uint8_t* codes, int shift, std::uint8_t* to) {
  for (int half = 0; half < 2; ++half, codes += 128, to += 32) {
    for (int l = 0; l < 32; ++l) {
      int byte = 0;
      for (int j = 0; j < 4; ++j) byte |= (codes[32 * j + l] >> shift & 3) << (2 * j);
      to[l] = byte_of(byte);
    }
  }
}
void read_pairs(const std::uint8_t* from, int shift, std::uint8_t* codes) {
  for (int half = 0; half < 2; ++half, codes += 128, from += 32) {
    for (int e = 0; e < 128; ++e) {
      const int pair = from[e % 32] >> (2 * (e / 32)) & 3;
      codes[e] = static_cast<std::uint8_t>(codes[e] | pair << shift);
    }
  }
}

// Bit `bit` of the code 32 s + l lies in byte l, at bit s.
void write_bits(const std::uint8_t* codes, int bit, std::uint8_t* to) {
  for (int l = 0; l < 32; ++l) {
    int byte = 0;
    for (int s = 0; s < 8; ++s) byte |= (codes[32 * s + l] >> bit & 1) << s;
    to[l] = byte_of(byte);
  }
}
void read_bits(const std::uint8_t* from, int bit, std::uint8_t* codes) {
  for (int e = 0; e < 256; ++e) {
    codes[e] = static_cast<std::uint8_t>(codes[e] | (from[e % 32] >> (e / 32) & 1) << bit);
  }
}

// Eight pairs of 6-bit numbers in 12 bytes.
void write_six(const std::int8_t* a, const std::int8_t* b, std::uint8_t* to) {
  for (int s = 0; s < 4; ++s) {
    to[s] = byte_of((a[s] & 63) | (a[s + 4] & 63) >> 4 << 6);
    to[s + 4] = byte_of((b[s] & 63) | (b[s + 4] & 63) >> 4 << 6);
    to[s + 8] = byte_of((a[s + 4] & 15) | (b[s + 4] & 15) << 4);
  }
}
void read_six(const std::uint8_t* from, std::int8_t* a, std::int8_t* b) {
  for (int s = 0; s < 4; ++s) {
    a[s] = static_cast<std::int8_t>(from[s] & 63);
    b[s] = static_cast<std::int8_t>(from[s + 4] & 63);
    a[s + 4] = static_cast<std::int8_t>((from[s + 8] & 15) | from[s] >> 6 << 4);
    b[s + 4] = static_cast<std::int8_t>(from[s + 8] >> 4 | from[s + 4] >> 6 << 4);
  }
}

// --- the types of 256 ---

void write_q2_k(const BlockParts& parts, std::uint8_t* to) {
  for (int s = 0; s < 16; ++s) to[s] = byte_of((parts.a[s] & 15) | (parts.b[s] & 15) << 4);
  write_pairs(parts.codes, 0, to + 16);
  write_f16(parts.d, to + 80);
  write_f16(parts.m, to + 82);
}
void read_q2_k(const std::uint8_t* from, BlockParts& parts) {
  for (int s = 0; s < 16; ++s) {
    parts.a[s] = static_cast<std::int8_t>(from[s] & 15);
    parts.b[s] = static_cast<std::int8_t>(from[s] >> 4);
  }
  read_pairs(from + 16, 0, parts.codes);
  parts.d = read_f16(from + 80);
  parts.m = read_f16(from + 82);
}

void write_q3_k(const BlockParts& parts, std::uint8_t* to) {
  write_bits(parts.codes, 2, to);
  write_pairs(parts.codes, 0, to + 32);
  std::uint8_t* scales = to + 96;
  std::memset(scales, 0, 12);
  for (int s = 0; s < 16; ++s) {
    const int six = parts.a[s] + 32;
    scales[s % 8] = byte_of(scales[s % 8] | (six & 15) << (s < 8 ? 0 : 4));
    scales[8 + s % 4] = byte_of(scales[8 + s % 4] | six >> 4 << (2 * (s / 4)));
  }
  write_f16(parts.d, to + 108);
}
void read_q3_k(const std::uint8_t* from, BlockParts& parts) {
  read_bits(from, 2, parts.codes);
  read_pairs(from + 32, 0, parts.codes);
  const std::uint8_t* scales = from + 96;
  for (int s = 0; s < 16; ++s) {
    const int low = scales[s % 8] >> (s < 8 ? 0 : 4) & 15;
    const int high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
    parts.a[s] = static_cast<std::int8_t>((low | high << 4) - 32);
  }
  parts.d = read_f16(from + 108);
}

void write_q4_k(const BlockParts& parts, bool fifth, std::uint8_t* to) {
  write_f16(parts.d, to);
  write_f16(parts.m, to + 2);
  write_six(parts.a, parts.b, to + 4);
  if (fifth) write_bits(parts.codes, 4, to + 16);
  std::uint8_t* nibbles = to + (fifth ? 48 : 16);
  for (int i = 0; i < 4; ++i) write_nibbles(parts.codes + 64 * i, 32, nibbles + 32 * i);
}
void read_q4_k(const std::uint8_t* from, bool fifth, BlockParts& parts) {
  parts.d = read_f16(from);
  parts.m = read_f16(from + 2);
  read_six(from + 4, parts.a, parts.b);
  const std::uint8_t* nibbles = from + (fifth ? 48 : 16);
  for (int i = 0; i < 4; ++i) read_nibbles(nibbles + 32 * i, 32, parts.codes + 64 * i);
  if (fifth) read_bits(from + 16, 4, parts.codes);
}

void write_q6_k(const BlockParts& parts, std::uint8_t* to) {
  for (int half = 0; half < 2; ++half) {
    write_nibbles(parts.codes + 128 * half, 64, to + 64 * half);
  }
  write_pairs(parts.codes, 4, to + 128);
  std::memcpy(to + 192, parts.a, 16);
  write_f16(parts.d, to + 208);
}
void read_q6_k(const std::uint8_t* from, BlockParts& parts) {
  for (int half = 0; half < 2; ++half) {
    read_nibbles(from + 64 * half, 64, parts.codes + 128 * half);
  }
  read_pairs(from + 128, 4, parts.codes);
  std::memcpy(parts.a, from + 192, 16);
  parts.d = read_f16(from + 208);
}

void write_iq4_xs(const BlockParts& parts, std::uint8_t* to) {
  write_f16(parts.d, to);
  int high = 0;
  for (int s = 0; s < 8; ++s) high |= (parts.a[s] + 32) >> 4 << (2 * s);
  to[2] = byte_of(high);
  to[3] = byte_of(high >> 8);
  for (int i = 0; i < 4; ++i) {
    to[4 + i] = byte_of(((parts.a[2 * i] + 32) & 15) | ((parts.a[2 * i + 1] + 32) & 15) << 4);
  }
  for (int s = 0; s < 8; ++s) write_nibbles(parts.codes + 32 * s, kHalf, to + 8 + 16 * s);
}
void read_iq4_xs(const std::uint8_t* from, BlockParts& parts) {
  parts.d = read_f16(from);
  const int high = from[2] | from[3] << 8;
  for (int s = 0; s < 8; ++s) {
    const int low = from[4 + s / 2] >> (4 * (s % 2)) & 15;
    parts.a[s] = static_cast<std::int8_t>((low | (high >> (2 * s) & 3) << 4) - 32);
    read_nibbles(from + 8 + 16 * s, kHalf, parts.codes + 32 * s);
  }
}

}  // namespace

const GgmlBlockInfo& ggml_block_info(GgmlBlock type) { return kInfo[static_cast<int>(type)]; }

void write_block(GgmlBlock type, const BlockParts& parts, std::uint8_t* to) {
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

void read_block(GgmlBlock type, const std::uint8_t* from, BlockParts& parts) {
  std::memset(parts.codes, 0, sizeof parts.codes);
  parts.m = 0;
  switch (type) {
    case GgmlBlock::q2_k:
      return read_q2_k(from, parts);
    case GgmlBlock::q3_k:
      return read_q3_k(from, parts);
    case GgmlBlock::q4_k:
      return read_q4_k(from, false, parts);
    case GgmlBlock::q5_k:
      return read_q4_k(from, true, parts);
    case GgmlBlock::q6_k:
      return read_q6_k(from, parts);
    case GgmlBlock::iq4_xs:
      return read_iq4_xs(from, parts);
    default:
      return read_small(type, from, parts);
  }
}

}  // namespace attar::kernels
