#include "compress/kernels/ggml_blocks/block_parts.h"

#include <cstring>

#include "compress/kernels/ggml_blocks/block_bytes.h"

namespace attar::kernels {
namespace {

constexpr int kHalf = 16;  // a 4-bit block of 32 holds element e beside element e + 16

float read_f16(const std::uint8_t* from) {
  return f16_value(static_cast<std::uint16_t>(from[0] | from[1] << 8));
}

// Low nibbles: the first `width` codes; high ones: the next.
void read_nibbles(const std::uint8_t* from, int width, std::uint8_t* codes) {
  for (int e = 0; e < width; ++e) {
    codes[e] = from[e] & 15;
    codes[e + width] = from[e] >> 4;
  }
}

// --- Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q8_0 ---

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
void read_pairs(const std::uint8_t* from, int shift, std::uint8_t* codes) {
  for (int half = 0; half < 2; ++half, codes += 128, from += 32) {
    for (int e = 0; e < 128; ++e) {
      const int pair = from[e % 32] >> (2 * (e / 32)) & 3;
      codes[e] = static_cast<std::uint8_t>(codes[e] | pair << shift);
    }
  }
}

// Bit `bit` of the code 32 s + l lies in byte l, at bit s.
void read_bits(const std::uint8_t* from, int bit, std::uint8_t* codes) {
  for (int e = 0; e < 256; ++e) {
    codes[e] = static_cast<std::uint8_t>(codes[e] | (from[e % 32] >> (e / 32) & 1) << bit);
  }
}

// Eight pairs of 6-bit numbers in 12 bytes.
void read_six(const std::uint8_t* from, std::int8_t* a, std::int8_t* b) {
  for (int s = 0; s < 4; ++s) {
    a[s] = static_cast<std::int8_t>(from[s] & 63);
    b[s] = static_cast<std::int8_t>(from[s + 4] & 63);
    a[s + 4] = static_cast<std::int8_t>((from[s + 8] & 15) | from[s] >> 6 << 4);
    b[s + 4] = static_cast<std::int8_t>(from[s + 8] >> 4 | from[s + 4] >> 6 << 4);
  }
}

// --- the types of 256 ---

void read_q2_k(const std::uint8_t* from, BlockParts& parts) {
  for (int s = 0; s < 16; ++s) {
    parts.a[s] = static_cast<std::int8_t>(from[s] & 15);
    parts.b[s] = static_cast<std::int8_t>(from[s] >> 4);
  }
  read_pairs(from + 16, 0, parts.codes);
  parts.d = read_f16(from + 80);
  parts.m = read_f16(from + 82);
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

void read_q4_k(const std::uint8_t* from, bool fifth, BlockParts& parts) {
  parts.d = read_f16(from);
  parts.m = read_f16(from + 2);
  read_six(from + 4, parts.a, parts.b);
  const std::uint8_t* nibbles = from + (fifth ? 48 : 16);
  for (int i = 0; i < 4; ++i) read_nibbles(nibbles + 32 * i, 32, parts.codes + 64 * i);
  if (fifth) read_bits(from + 16, 4, parts.codes);
}

void read_q6_k(const std::uint8_t* from, BlockParts& parts) {
  for (int half = 0; half < 2; ++half) {
    read_nibbles(from + 64 * half, 64, parts.codes + 128 * half);
  }
  read_pairs(from + 128, 4, parts.codes);
  std::memcpy(parts.a, from + 192, 16);
  parts.d = read_f16(from + 208);
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

const GgmlBlockInfo& ggml_block_info(GgmlBlock type) {
  return kGgmlBlockInfos[static_cast<int>(type)];
}

void write_block(GgmlBlock type, const BlockParts& parts, std::uint8_t* to) {
  write_parts(type, parts, to);
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
