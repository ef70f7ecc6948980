#include <stdexcept>
#include <string>

#include "compress/kernels/dequantize_affine/dequantize_affine.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

void check_bits(int bits) {
  if (bits < 2 || bits > 8) {
    throw std::invalid_argument("[pack_codes] bits must be in [2, 8], got " + std::to_string(bits));
  }
}

// `pending` holds the bits that do not fill a word yet: at most 31 and one code more.
template <int bits>
void pack_row(const std::uint8_t* codes, std::int64_t columns, std::uint32_t* words) {
  std::uint64_t pending = 0;
  int filled = 0;
  for (std::int64_t c = 0; c < columns; ++c) {
    pending |= static_cast<std::uint64_t>(codes[c] & ((1u << bits) - 1)) << filled;
    filled += bits;
    if (filled >= 32) {
      *words++ = static_cast<std::uint32_t>(pending);
      pending >>= 32;
      filled -= 32;
    }
  }
  if (filled > 0) *words = static_cast<std::uint32_t>(pending);
}

template <int bits>
void unpack_row(const std::uint32_t* words, std::int64_t columns, std::uint8_t* codes) {
  std::uint64_t pending = 0;
  int filled = 0;
  for (std::int64_t c = 0; c < columns; ++c) {
    if (filled < bits) {
      pending |= static_cast<std::uint64_t>(*words++) << filled;
      filled += 32;
    }
    codes[c] = static_cast<std::uint8_t>(pending & ((1u << bits) - 1));
    pending >>= bits;
    filled -= bits;
  }
}

constexpr void (*kPackRow[])(const std::uint8_t*, std::int64_t, std::uint32_t*) = {
    pack_row<2>, pack_row<3>, pack_row<4>, pack_row<5>, pack_row<6>, pack_row<7>, pack_row<8>};
constexpr void (*kUnpackRow[])(const std::uint32_t*, std::int64_t, std::uint8_t*) = {
    unpack_row<2>, unpack_row<3>, unpack_row<4>, unpack_row<5>,
    unpack_row<6>, unpack_row<7>, unpack_row<8>};

}  // namespace

std::int64_t packed_words(std::int64_t columns, int bits) {
  check_bits(bits);
  return columns / 32 * bits + (columns % 32 * bits + 31) / 32;
}

void pack_codes(const std::uint8_t* codes, std::int64_t rows, std::int64_t columns, int bits,
                std::uint32_t* words) {
  const std::int64_t row_words = packed_words(columns, bits);
  for_row_ranges(rows, columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      kPackRow[bits - 2](codes + r * columns, columns, words + r * row_words);
    }
  });
}

void unpack_codes(const std::uint32_t* words, std::int64_t rows, std::int64_t columns, int bits,
                  std::uint8_t* codes) {
  const std::int64_t row_words = packed_words(columns, bits);
  for_row_ranges(rows, columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      kUnpackRow[bits - 2](words + r * row_words, columns, codes + r * columns);
    }
  });
}

}  // namespace attar::kernels
