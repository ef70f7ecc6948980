// Unsigned integer codes with one scale and one offset a group of columns.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

enum class Offset : std::uint8_t {
  zero,     // out = scale * (code - offset); the offset is a code, usually a whole number
  minimum,  // out = scale * code + offset; both operations rounded, never fused
};

// [rows, columns] codes -> [rows, columns] values. Column c uses group c / group_size; group_size
// need not divide columns, the last group is then short. All variants give the same bits.
struct AffineCodes {
  const std::uint8_t* codes;  // [rows, columns], contiguous
  const float* scale;         // [rows, groups], groups = ceil(columns / group_size)
  const float* offset;        // [rows, groups]
  float* out;                 // [rows, columns], contiguous
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t group_size;
  Offset meaning;
};
void dequantize_affine(const AffineCodes& call, const Variant& variant = active_variant());

// Words that one row of `columns` codes of `bits` bits takes: ceil(columns * bits / 32).
std::int64_t packed_words(std::int64_t columns, int bits);

// A dense bit stream a row: code c of a row takes its bits [c * bits, (c + 1) * bits) counted from
// the lowest bit of the first word; codes may cross words; each row starts a new word; the last
// word is filled with zeros. (compressed-tensors "pack-quantized".) bits is 2 .. 8.
//
//   codes  [rows, columns] u8, each < 2^bits (higher bits are ignored)
//   words  [rows, packed_words(columns, bits)] u32, native order
void pack_codes(const std::uint8_t* codes, std::int64_t rows, std::int64_t columns, int bits,
                std::uint32_t* words);
void unpack_codes(const std::uint32_t* words, std::int64_t rows, std::int64_t columns, int bits,
                  std::uint8_t* codes);

}  // namespace attar::kernels
