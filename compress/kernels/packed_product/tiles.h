// Products of panels of 32 on the eight tile registers. For files compiled with the flags of AMX
// and AVX-512 (with its bfloat16 conversions) only.
//
// A tile is 16 rows of 64 bytes. Four hold sums, two a piece of 32 rows, two a piece of 32 outputs:
//   rows of x:  [panel of 32 rows][block of 32 inputs][piece][16-row tile][16][32] bfloat16
//   weights:    [panel of 32 outputs][block of 32 inputs][piece][16-output tile][16][16][2]
// where the last [2] are neighbouring inputs of one output.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "compress/kernels/packed_product/task.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

inline constexpr std::int64_t kTile = 512;             // bfloat16 in a tile
inline constexpr std::int64_t kPieceSize = 2 * kTile;  // of 32 x 32 values

// The tile registers, shaped 16 x 64 bytes, while this lives.
class TileRegisters {
 public:
  TileRegisters() {
    Configuration shape = {};
    shape.palette = 1;
    for (int i = 0; i < 8; ++i) {
      shape.row_bytes[i] = 64;
      shape.rows[i] = 16;
    }
    // GCC 12 thinks that the instruction reads 8 bytes and may leave the others unwritten.
    __asm__ volatile("" : : "r"(&shape) : "memory");
    _tile_loadconfig(&shape);
  }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;

 private:
  struct alignas(64) Configuration {
    std::uint8_t palette;
    std::uint8_t start_row;
    std::uint8_t reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
  };
};

ATTAR_INLINE __mmask16 lanes_below(std::int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

// 32 floats, and what is left of them once a piece has been taken.
struct Floats32 {
  __m512 low, high;

  // The nearest bfloat16 of each; the rest stays.
  ATTAR_INLINE __m512i take_piece(Floats32& x) {
    const __m512i piece = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x.high, x.low));
    const auto widened = [](__m256i half) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    };
    x.low = _mm512_sub_ps(x.low, widened(_mm512_castsi512_si256(piece)));
    x.high = _mm512_sub_ps(x.high, widened(_mm512_extracti64x4_epi64(piece, 1)));
    return piece;
  }
};

// Up to 32 values of a row, zeros after them.
ATTAR_INLINE Floats32 load32(const float* from, std::int64_t count) {
  return {_mm512_maskz_loadu_ps(lanes_below(count), from),
          _mm512_maskz_loadu_ps(lanes_below(count - 16), from + 16)};
}

// Row r of a packed panel of rows, inputs [32 block, 32 block + 32).
ATTAR_INLINE std::uint16_t* row_in_panel(std::uint16_t* panel, std::int64_t block, std::int64_t r) {
  return panel + block * 3 * kPieceSize + r / 16 * kTile + r % 16 * 32;
}

ATTAR_INLINE void split_into(Floats32 values, std::uint16_t* out) {
  for (int piece = 0; piece < 3; ++piece) {
    _mm512_store_si512(out + piece * kPieceSize, Floats32::take_piece(values));
  }
}

// `count` rows (at most 32) into a panel, with zeros up to the next multiple of 16 rows.
ATTAR_INLINE void split_panel(const float* x, std::int64_t stride, std::int64_t count,
                              std::int64_t inner, std::uint16_t* panel) {
  const std::int64_t blocks = panels_of(inner);
  for (std::int64_t r = 0; r < (count + 15) / 16 * 16; ++r) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t left = r < count ? inner - block * kPanel : 0;
      split_into(load32(x + (r < count ? r * stride + block * kPanel : 0), left),
                 row_in_panel(panel, block, r));
    }
  }
}

// Pieces `rows_piece` of the rows times `weights_piece` of the weights, added to the sums. What a
// register already holds is not loaded again.
#define ATTAR_LOAD_ROWS(piece)                          \
  _tile_loadd(4, x + (piece)*kPieceSize, 64);           \
  if constexpr (two_tiles) {                            \
    _tile_loadd(5, x + (piece)*kPieceSize + kTile, 64); \
  }
#define ATTAR_LOAD_WEIGHTS(piece)                   \
  _tile_loadd(6, weights + (piece)*kPieceSize, 64); \
  _tile_loadd(7, weights + (piece)*kPieceSize + kTile, 64)
#define ATTAR_MULTIPLY()     \
  _tile_dpbf16ps(0, 4, 6);   \
  _tile_dpbf16ps(1, 4, 7);   \
  if constexpr (two_tiles) { \
    _tile_dpbf16ps(2, 5, 6); \
    _tile_dpbf16ps(3, 5, 7); \
  }

// sums [16 or 32, 32] = rows times one panel of weights. The order of the sums within a block of 32
// inputs is the same for any number of pieces: a missing one would have added zeros.
template <int pieces, bool two_tiles>
ATTAR_INLINE void multiply_panel(const std::uint16_t* x, const std::uint16_t* weights,
                                 std::int64_t blocks, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t block = 0; block < blocks; ++block) {
    ATTAR_LOAD_WEIGHTS(0);
    ATTAR_LOAD_ROWS(2);
    ATTAR_MULTIPLY();
    ATTAR_LOAD_ROWS(1);
    ATTAR_MULTIPLY();
    if constexpr (pieces > 1) {
      ATTAR_LOAD_WEIGHTS(1);
      ATTAR_MULTIPLY();
    }
    ATTAR_LOAD_ROWS(0);
    if constexpr (pieces > 1) {
      ATTAR_MULTIPLY();
    }
    if constexpr (pieces > 2) {
      ATTAR_LOAD_WEIGHTS(2);
      ATTAR_MULTIPLY();
    }
    if constexpr (pieces > 1) {
      ATTAR_LOAD_WEIGHTS(0);
    }
    ATTAR_MULTIPLY();
    x += 3 * kPieceSize;
    weights += pieces * kPieceSize;
  }
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
  if constexpr (two_tiles) {
    _tile_stored(2, sums + 16 * 32, 128);
    _tile_stored(3, sums + 16 * 32 + 16, 128);
  }
}
#undef ATTAR_LOAD_ROWS
#undef ATTAR_LOAD_WEIGHTS
#undef ATTAR_MULTIPLY

// The same for `rows` (at most 32) of them.
template <int pieces>
ATTAR_INLINE void multiply_rows(const std::uint16_t* x, std::int64_t rows,
                                const std::uint16_t* weights, std::int64_t blocks, float* sums) {
  if (rows > 16) {
    multiply_panel<pieces, true>(x, weights, blocks, sums);
  } else {
    multiply_panel<pieces, false>(x, weights, blocks, sums);
  }
}

}  // namespace attar::kernels
