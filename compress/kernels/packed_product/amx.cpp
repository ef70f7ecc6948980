#include "compress/kernels/packed_product/packed_product.h"
#include "compress/kernels/packed_product/tiles.h"
#include "compress/kernels/rms_norm/rms_norm.h"

namespace attar::kernels {

// Instantiated where the kernels of AVX-512 are.
struct Avx512;
template <class S>
void rms_norm_rows(const RmsNorm&, std::int64_t, std::int64_t);
template <class S>
void gated_activation_rows(const GatedActivation&, std::int64_t, std::int64_t);

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

// Up to 32 values from `at` on, zeros after them.
ATTAR_INLINE Floats32 load_weights(const PackMatrix& call, std::int64_t at, std::int64_t count) {
  if (call.type == PackType::f32) {
    return load32(static_cast<const float*>(call.values) + at, count);
  }
  const auto* from = static_cast<const std::uint16_t*>(call.values) + at;
  const __m256i low = _mm256_maskz_loadu_epi16(lanes_below(count), from);
  const __m256i high = _mm256_maskz_loadu_epi16(lanes_below(count - 16), from + 16);
  if (call.type == PackType::f16) return {_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)};
  const auto widened = [](__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  };
  return {widened(low), widened(high)};
}

// One tile of weights, outputs [first, first + 16) by 32 inputs. Outputs outside of `written` stay.
int pack_tile(const PackMatrix& call, std::int64_t first, std::int64_t block, std::uint16_t* tile) {
  Floats32 left[16];
  __mmask16 written = 0;
  for (int c = 0; c < 16; ++c) {
    const std::int64_t row = first + c - call.first;
    const bool there = row >= 0 && row < call.count;
    written = static_cast<__mmask16>(written | (there ? 1u << c : 0u));
    left[c] = load_weights(call, there ? row * call.inner + block * kPanel : 0,
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

// Where the sums of a product go: out = sums + bias + added.
struct Output {
  std::int64_t columns;
  const float* bias;
  const float* added;
  float* out;  // as are the rows of `added`, `stride` floats apart
  std::int64_t stride;
};

// Up to 32 x 32 sums, the first of them at `row` and `column`.
ATTAR_INLINE void write_sums(const Output& to, const float* sums, std::int64_t row,
                             std::int64_t rows, std::int64_t column) {
  const __mmask16 low = lanes_below(to.columns - column);
  const __mmask16 high = lanes_below(to.columns - column - 16);
  const auto bias = [&](__mmask16 lanes, std::int64_t at) {
    return to.bias ? _mm512_maskz_loadu_ps(lanes, to.bias + column + at) : _mm512_setzero_ps();
  };
  const __m512 low_bias = bias(low, 0), high_bias = bias(high, 16);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = (row + r) * to.stride + column;
    __m512 left = _mm512_load_ps(sums + r * 32), right = _mm512_load_ps(sums + r * 32 + 16);
    if (to.bias) {
      left = _mm512_add_ps(left, low_bias);
      right = _mm512_add_ps(right, high_bias);
    }
    if (to.added) {
      left = _mm512_add_ps(left, _mm512_maskz_loadu_ps(low, to.added + at));
      right = _mm512_add_ps(right, _mm512_maskz_loadu_ps(high, to.added + at + 16));
    }
    _mm512_mask_storeu_ps(to.out + at, low, left);
    _mm512_mask_storeu_ps(to.out + at + 16, high, right);
  }
}

// Up to kTaskRows rows in pieces.
struct PieceRows {
  std::uint16_t* pieces;
  std::int64_t rows;
  std::int64_t blocks;  // of 32 inputs

  std::uint16_t* panel(std::int64_t row) const {
    return pieces + row / kPanel * blocks * 3 * kPieceSize;
  }
  std::int64_t count(std::int64_t row) const { return rows - row < kPanel ? rows - row : kPanel; }
};

// sums of the 32 rows from `row` on with one panel of a layer.
ATTAR_INLINE void multiply(const PieceRows& x, std::int64_t row, const PackedLayer& layer,
                           std::int64_t panel, float* sums) {
  const auto* weights = static_cast<const std::uint16_t*>(layer.weights) +
                        panel * x.blocks * layer.pieces * kPieceSize;
  switch (layer.pieces) {
    case 1:
      return multiply_rows<1>(x.panel(row), x.count(row), weights, x.blocks, sums);
    case 2:
      return multiply_rows<2>(x.panel(row), x.count(row), weights, x.blocks, sums);
    default:
      return multiply_rows<3>(x.panel(row), x.count(row), weights, x.blocks, sums);
  }
}

void multiply_panels(const PieceRows& x, const PackedLayer& layer, std::int64_t begin,
                     std::int64_t end, const Output& to) {
  alignas(64) float sums[kPanel * kPanel];
  for (std::int64_t panel = begin; panel < end; ++panel) {
    for (std::int64_t row = 0; row < x.rows; row += kPanel) {
      multiply(x, row, layer, panel, sums);
      write_sums(to, sums, row, x.count(row), panel * kPanel);
    }
  }
}

// Rows, or their norms, into pieces; strip holds one panel of norms.
void split(const float* from, std::int64_t stride, std::int64_t inner, const PieceRows& x,
           const float* norm, float eps, float* strip) {
  for (std::int64_t row = 0; row < x.rows; row += kPanel) {
    const float* rows = from + row * stride;
    if (norm) {
      rms_norm_rows<Avx512>({rows, norm, strip, x.count(row), inner, eps}, 0, x.count(row));
      rows = strip;
    }
    split_panel(rows, norm ? inner : stride, x.count(row), inner, x.panel(row));
  }
}

// act(gate) * up of all rows into pieces, 32 columns at a time.
void gate_and_split(const PackedFinish& call, const PieceRows& x, const PieceRows& gated) {
  alignas(64) float gate[kPanel * kPanel], up[kPanel * kPanel];
  const std::int64_t width = call.down.inner;
  const auto add_bias = [&](float* sums, std::int64_t rows, std::int64_t column) {
    if (!call.gate_up.bias) return;
    write_sums({kPanel, call.gate_up.bias + column, nullptr, sums, kPanel}, sums, 0, rows, 0);
  };
  for (std::int64_t panel = 0; panel < width / kPanel; ++panel) {
    for (std::int64_t row = 0; row < x.rows; row += kPanel) {
      const std::int64_t rows = x.count(row);
      multiply(x, row, call.gate_up, panel, gate);
      multiply(x, row, call.gate_up, width / kPanel + panel, up);
      add_bias(gate, rows, panel * kPanel);
      add_bias(up, rows, width + panel * kPanel);
      gated_activation_rows<Avx512>(
          {gate, up, gate, rows, kPanel, kPanel, kPanel, kPanel, call.activation}, 0, rows);
      for (std::int64_t r = 0; r < (rows + 15) / 16 * 16; ++r) {
        split_into(load32(gate + r * kPanel, r < rows ? kPanel : 0),
                   row_in_panel(gated.panel(row), panel, r));
      }
    }
  }
}

}  // namespace

int pack_panel_amx(const PackMatrix& call, std::int64_t panel) {
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

void packed_product_amx(const PackedProduct& call, const PackedTask& task) {
  const TileRegisters registers;
  const std::int64_t inner = call.layer.inner, rows = task.row_end - task.row_begin;
  const PieceRows x{reinterpret_cast<std::uint16_t*>(task.scratch), rows, panels_of(inner)};
  auto* strip = reinterpret_cast<float*>(task.scratch + pieces_bytes(rows, inner));
  split(call.x + task.row_begin * call.x_stride, call.x_stride, inner, x, call.norm, call.eps,
        strip);
  const std::int64_t at = task.row_begin * call.out_stride;
  multiply_panels(x, call.layer, task.panel_begin, task.panel_end,
                  {call.layer.columns, call.layer.bias, call.added ? call.added + at : nullptr,
                   call.out + at, call.out_stride});
}

void packed_finish_amx(const PackedFinish& call, const PackedTask& task) {
  const TileRegisters registers;
  const std::int64_t rows = task.row_end - task.row_begin;
  const std::int64_t hidden = call.output.columns, mixed = call.output.inner;
  auto* strip = reinterpret_cast<float*>(task.scratch);
  float* h = strip + strip_bytes(hidden) / 4;
  auto* pieces = reinterpret_cast<std::uint16_t*>(h + strip_bytes(hidden) / 4 * panels_of(rows));
  const PieceRows gated{pieces, rows, panels_of(call.down.inner)};
  pieces += pieces_bytes(rows, call.down.inner) / 2;

  const PieceRows attended{pieces, rows, panels_of(mixed)};
  split(call.mixed + task.row_begin * mixed, mixed, mixed, attended, nullptr, 0, nullptr);
  multiply_panels(attended, call.output, 0, panels_of(hidden),
                  {hidden, call.output.bias, call.x + task.row_begin * hidden, h, hidden});
  const PieceRows normed{pieces, rows, panels_of(hidden)};
  split(h, hidden, hidden, normed, call.norm, call.eps, strip);
  gate_and_split(call, normed, gated);
  float* out = call.out + task.row_begin * hidden;
  multiply_panels(gated, call.down, 0, panels_of(hidden), {hidden, call.down.bias, h, out, hidden});
}

}  // namespace attar::kernels
