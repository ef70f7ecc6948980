#include "compress/kernels/split_product/split_product.h"
#include "compress/kernels/split_product/tiles.h"

namespace attar::kernels {
namespace {

// 16 x 16 words, turned.
ATTAR_INLINE void transpose(__m512i (&row)[16]) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + 2 + j]);
      b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + 2 + j]);
    }
  }
  for (int i = 0; i < 4; ++i) {  // rows i, 4 + i, ...: column i of each group of four
    a[i] = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88);
    a[4 + i] = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
    a[8 + i] = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88);
    a[12 + i] = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    row[i] = _mm512_shuffle_i32x4(a[i], a[8 + i], 0x88);
    row[8 + i] = _mm512_shuffle_i32x4(a[i], a[8 + i], 0xdd);
    row[4 + i] = _mm512_shuffle_i32x4(a[4 + i], a[12 + i], 0x88);
    row[12 + i] = _mm512_shuffle_i32x4(a[4 + i], a[12 + i], 0xdd);
  }
}

// One tile of weights, outputs [first, first + 16) by 32 inputs. Outputs outside of `written` stay.
int pack_tile(const SplitPack& call, std::int64_t first, std::int64_t block, std::uint16_t* tile) {
  Floats32 left[16];
  __mmask16 written = 0;
  for (int c = 0; c < 16; ++c) {
    const std::int64_t row = first + c - call.first;
    const bool there = row >= 0 && row < call.count;
    written = static_cast<__mmask16>(written | (there ? 1u << c : 0u));
    left[c] = load32(call.values + (there ? row * call.inner + block * kPanel : 0),
                     there ? call.inner - block * kPanel : 0);
  }
  int needed = 1;
  for (int piece = 0; piece < 3; ++piece) {
    __m512i words[16];
    __m512i any = _mm512_setzero_si512();
    for (int c = 0; c < 16; ++c) {
      words[c] = Floats32::take_piece(left[c]);
      any = _mm512_or_si512(any, words[c]);
    }
    if (_mm512_test_epi16_mask(any, _mm512_set1_epi16(0x7fff)) != 0) needed = piece + 1;
    if (piece >= call.pieces) continue;
    transpose(words);
    for (int r = 0; r < 16; ++r) {
      _mm512_mask_storeu_epi32(tile + piece * kPieceSize + r * 32, written, words[r]);
    }
  }
  return needed;
}

// out = sums + bias + added for up to 32 x 32 of them.
ATTAR_INLINE void write_sums(const SplitProduct& call, const float* sums, std::int64_t row,
                             std::int64_t rows, std::int64_t column) {
  const __mmask16 low = lanes_below(call.columns - column);
  const __mmask16 high = lanes_below(call.columns - column - 16);
  const auto bias = [&](__mmask16 lanes, std::int64_t at) {
    return call.bias ? _mm512_maskz_loadu_ps(lanes, call.bias + column + at) : _mm512_setzero_ps();
  };
  const __m512 low_bias = bias(low, 0), high_bias = bias(high, 16);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = (row + r) * call.out_stride + column;
    __m512 left = _mm512_load_ps(sums + r * 32), right = _mm512_load_ps(sums + r * 32 + 16);
    if (call.bias) {
      left = _mm512_add_ps(left, low_bias);
      right = _mm512_add_ps(right, high_bias);
    }
    if (call.added) {
      left = _mm512_add_ps(left, _mm512_maskz_loadu_ps(low, call.added + at));
      right = _mm512_add_ps(right, _mm512_maskz_loadu_ps(high, call.added + at + 16));
    }
    _mm512_mask_storeu_ps(call.out + at, low, left);
    _mm512_mask_storeu_ps(call.out + at + 16, high, right);
  }
}

template <int pieces>
void multiply_task(const SplitProduct& call, const SplitTask& task) {
  const TileRegisters registers;
  alignas(64) float sums[kPanel * kPanel];
  auto* x = static_cast<std::uint16_t*>(task.scratch);
  const auto* weights = static_cast<const std::uint16_t*>(call.weights);
  const std::int64_t blocks = panels_of(call.inner);
  const auto rows_at = [&](std::int64_t row) {
    return task.row_end - row < kPanel ? task.row_end - row : kPanel;
  };
  const auto panel_at = [&](std::int64_t row) {
    return x + (row - task.row_begin) / kPanel * blocks * 3 * kPieceSize;
  };
  for (std::int64_t row = task.row_begin; row < task.row_end; row += kPanel) {
    split_panel(call.x + row * call.x_stride, call.x_stride, rows_at(row), call.inner,
                panel_at(row));
  }
  for (std::int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    for (std::int64_t row = task.row_begin; row < task.row_end; row += kPanel) {
      multiply_rows<pieces>(panel_at(row), rows_at(row),
                            weights + panel * blocks * pieces * kPieceSize, blocks, sums);
      write_sums(call, sums, row, rows_at(row), panel * kPanel);
    }
  }
}

}  // namespace

int amx_split_pack(const SplitPack& call, std::int64_t panel) {
  const std::int64_t blocks = panels_of(call.inner);
  auto* weights = static_cast<std::uint16_t*>(call.weights);
  int needed = 1;
  for (std::int64_t block = 0; block < blocks; ++block) {
    std::uint16_t* at = weights + (panel * blocks + block) * call.pieces * kPieceSize;
    for (int half = 0; half < 2; ++half) {
      const int found = pack_tile(call, panel * kPanel + half * 16, block, at + half * kTile);
      needed = found > needed ? found : needed;
    }
  }
  return needed;
}

void amx_split_product(const SplitProduct& call, const SplitTask& task) {
  switch (call.pieces) {
    case 1:
      return multiply_task<1>(call, task);
    case 2:
      return multiply_task<2>(call, task);
    default:
      return multiply_task<3>(call, task);
  }
}

}  // namespace attar::kernels
