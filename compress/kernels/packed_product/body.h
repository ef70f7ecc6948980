// Products on fused multiply-adds, once for every instruction set S.
//
// A packed matrix is [panel of 32 outputs][inner][32] float32, float16 or bfloat16. S::kTileRows
// rows by two vectors of outputs are summed in registers over at most kChain inputs; the sums of
// such chains are added in their order.
#pragma once

#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/packed_product/task.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// Instantiated by their own folders.
template <class S>
void rms_norm_rows(const RmsNorm&, std::int64_t, std::int64_t);
template <class S>
void gated_activation_rows(const GatedActivation&, std::int64_t, std::int64_t);

inline constexpr std::int64_t kChain = 1024;

// Values of panels that hold this type.
template <PackType held>
struct Held {
  std::uint16_t bits;
};
template <>
struct Held<PackType::f32> {
  float value;
};

template <class S, PackType held>
ATTAR_INLINE typename S::Floats load_held(const Held<held>* from) {
  if constexpr (held == PackType::f16) return S::from_f16(from);
  if constexpr (held == PackType::bf16) return S::from_bf16(from);
  if constexpr (held == PackType::f32) return S::load(&from->value);
}

// sums [rows, 32] = or += x [rows, count] w [count, 32], two vectors of the 32.
template <class S, int rows, PackType held>
ATTAR_INLINE void multiply_tile(const float* x, std::int64_t stride, const Held<held>* w,
                                std::int64_t count, bool first, float* sums) {
  constexpr int W = S::kWidth;
  typename S::Floats low[rows], high[rows];
  for (int r = 0; r < rows; ++r) low[r] = high[r] = S::broadcast(0.0f);
  for (std::int64_t k = 0; k < count; ++k) {
    const auto left = load_held<S>(w + k * kPanel), right = load_held<S>(w + k * kPanel + W);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const auto value = S::broadcast(x[r * stride + k]);
      low[r] = S::mul_add(value, left, low[r]);
      high[r] = S::mul_add(value, right, high[r]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    float* to = sums + r * kPanel;
    S::store(to, first ? low[r] : S::add(S::load(to), low[r]));
    S::store(to + W, first ? high[r] : S::add(S::load(to + W), high[r]));
  }
}

// The same for `count` rows, at most `rows`.
template <class S, PackType held, int rows = S::kTileRows>
ATTAR_INLINE void multiply_rows(std::int64_t count, const float* x, std::int64_t stride,
                                const Held<held>* w, std::int64_t inputs, bool first, float* sums) {
  if constexpr (rows > 1) {
    if (count < rows) {
      return multiply_rows<S, held, rows - 1>(count, x, stride, w, inputs, first, sums);
    }
  }
  multiply_tile<S, rows>(x, stride, w, inputs, first, sums);
}

// sums [rows, 32] of rows x with one panel [inner, 32].
template <class S, PackType held>
__attribute__((noinline)) void multiply_held(const float* x, std::int64_t stride, std::int64_t rows,
                                             const Held<held>* panel, std::int64_t inner,
                                             float* sums) {
  const std::int64_t tiles = (rows + S::kTileRows - 1) / S::kTileRows;
  for (std::int64_t k = 0; k == 0 || k < inner; k += kChain) {
    const std::int64_t count = inner - k < kChain ? inner - k : kChain;
    for (std::int64_t i = 0; i < tiles; ++i) {  // of about the same height
      const std::int64_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
      for (int part = 0; part < kPanel; part += 2 * S::kWidth) {
        multiply_rows<S, held>(end - begin, x + begin * stride + k, stride,
                               panel + k * kPanel + part, count, k == 0,
                               sums + begin * kPanel + part);
      }
    }
  }
}

// sums [kTogether, 32] of one row with neighbouring panels: one alone has too few sums on their way
// for the processor to hide how long an addition takes. The same bits.
template <class S>
inline constexpr std::int64_t kTogether = S::kWidth / 4;  // eight vectors of sums
inline constexpr std::int64_t kAhead = 32;                // inputs that are asked for in time

template <class S, PackType held>
__attribute__((noinline)) void multiply_row(const float* x, const Held<held>* panels,
                                            std::int64_t inner, float* sums) {
  constexpr int W = S::kWidth, vectors = kPanel / W;
  for (std::int64_t k = 0; k == 0 || k < inner; k += kChain) {
    const std::int64_t end = inner - k < kChain ? inner : k + kChain;
    typename S::Floats sum[kTogether<S> * vectors];
    for (auto& s : sum) s = S::broadcast(0.0f);
    for (std::int64_t i = k; i < end; ++i) {
      const auto value = S::broadcast(x[i]);
      // What comes in a while, at the end that of the panels behind these.
      const std::int64_t ahead =
          i + kAhead < inner ? i + kAhead : i + kAhead + (kTogether<S> - 1) * inner;
#pragma GCC unroll 16
      for (int s = 0; s < kTogether<S> * vectors; ++s) {
        const auto* w = panels + (s / vectors * inner + i) * kPanel + s % vectors * W;
        sum[s] = S::mul_add(value, load_held<S>(w), sum[s]);
      }
#pragma GCC unroll 16
      for (int p = 0; p < kTogether<S>; ++p) {
        const auto* next = reinterpret_cast<const char*>(panels + (p * inner + ahead) * kPanel);
        for (std::size_t line = 0; line < sizeof(Held<held>) * kPanel; line += 64) {
          __builtin_prefetch(next + line, 0, 3);
        }
      }
    }
    for (int s = 0; s < kTogether<S> * vectors; ++s) {
      S::store(sums + s * W, k == 0 ? sum[s] : S::add(S::load(sums + s * W), sum[s]));
    }
  }
}

// Panels from `panel` on; `together`: kTogether of them, of one row.
template <class S, bool together = false>
ATTAR_INLINE void multiply_panel(const float* x, std::int64_t stride, std::int64_t rows,
                                 const PackedLayer& layer, std::int64_t panel, float* sums) {
  const auto held = [&]<PackType type>(Held<type>) {
    const auto* weights =
        static_cast<const Held<type>*>(layer.weights) + panel * layer.inner * kPanel;
    if constexpr (together) {
      multiply_row<S>(x, weights, layer.inner, sums);
    } else {
      multiply_held<S>(x, stride, rows, weights, layer.inner, sums);
    }
  };
  switch (layer.held) {
    case PackType::f32:
      return held(Held<PackType::f32>{});
    case PackType::f16:
      return held(Held<PackType::f16>{});
    case PackType::bf16:
      return held(Held<PackType::bf16>{});
  }
}

// Where the sums of a product go: out = sums + bias + added.
struct PanelOutput {
  std::int64_t columns;
  const float* bias;
  const float* added;
  float* out;
  std::int64_t stride;  // of rows of added and out
};

template <class S>
ATTAR_INLINE void write_sums(const PanelOutput& to, const float* sums, std::int64_t rows,
                             std::int64_t column) {
  constexpr int W = S::kWidth;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (int part = 0; part < kPanel && column + part < to.columns; part += W) {
      const std::int64_t c = column + part, at = r * to.stride + c, left = to.columns - c;
      auto sum = S::load(sums + r * kPanel + part);
      if (left >= W) {
        if (to.bias) sum = S::add(sum, S::load(to.bias + c));
        if (to.added) sum = S::add(sum, S::load(to.added + at));
        S::store(to.out + at, sum);
      } else {
        if (to.bias) sum = S::add(sum, S::load_first(to.bias + c, left, 0.0f));
        if (to.added) sum = S::add(sum, S::load_first(to.added + at, left, 0.0f));
        S::store_first(to.out + at, sum, left);
      }
    }
  }
}

// Panels [begin, end) of a layer; `sums` holds [rows, 32], and 32 rows at least.
template <class S>
ATTAR_INLINE void multiply_panels(const float* x, std::int64_t stride, std::int64_t rows,
                                  const PackedLayer& layer, std::int64_t begin, std::int64_t end,
                                  float* sums, const PanelOutput& to) {
  std::int64_t panel = begin;
  for (; rows == 1 && panel + kTogether<S> <= end; panel += kTogether<S>) {
    multiply_panel<S, true>(x, stride, rows, layer, panel, sums);
    for (std::int64_t i = 0; i < kTogether<S>; ++i) {
      write_sums<S>(to, sums + i * kPanel, rows, (panel + i) * kPanel);
    }
  }
  for (; panel < end; ++panel) {
    multiply_panel<S>(x, stride, rows, layer, panel, sums);
    write_sums<S>(to, sums, rows, panel * kPanel);
  }
}

template <class S>
void packed_product_task(const PackedProduct& call, const PackedTask& task) {
  const std::int64_t inner = call.layer.inner, rows = task.row_end - task.row_begin;
  auto* sums = reinterpret_cast<float*>(task.scratch);
  const float* x = call.x + task.row_begin * call.x_stride;
  std::int64_t stride = call.x_stride;
  if (call.norm) {
    float* normed = sums + panels_of(rows) * kPanel * kPanel;
    rms_norm_rows<S>({x, call.norm, normed, rows, inner, call.eps}, 0, rows);
    x = normed;
    stride = inner;
  }
  const std::int64_t at = task.row_begin * call.out_stride;
  multiply_panels<S>(x, stride, rows, call.layer, task.panel_begin, task.panel_end, sums,
                     {call.layer.columns, call.layer.bias, call.added ? call.added + at : nullptr,
                      call.out + at, call.out_stride});
}

// act(gate) * up, 32 columns at a time.
template <class S>
ATTAR_INLINE void multiply_and_gate(const PackedFinish& call, const float* normed,
                                    std::int64_t rows, float* sums, float* gated) {
  const std::int64_t width = call.down.inner, hidden = call.output.columns;
  float *gate = sums, *up = sums + rows * kPanel;
  const float* bias = call.gate_up.bias;
  for (std::int64_t panel = 0; panel < width / kPanel; ++panel) {
    const std::int64_t column = panel * kPanel;
    multiply_panel<S>(normed, hidden, rows, call.gate_up, panel, gate);
    multiply_panel<S>(normed, hidden, rows, call.gate_up, width / kPanel + panel, up);
    if (bias) {
      write_sums<S>({kPanel, bias + column, nullptr, gate, kPanel}, gate, rows, 0);
      write_sums<S>({kPanel, bias + width + column, nullptr, up, kPanel}, up, rows, 0);
    }
    gated_activation_rows<S>(
        {gate, up, gated + column, rows, kPanel, kPanel, kPanel, width, call.activation}, 0, rows);
  }
}

template <class S>
void packed_finish_task(const PackedFinish& call, const PackedTask& task) {
  const std::int64_t rows = task.row_end - task.row_begin;
  const std::int64_t hidden = call.output.columns, mixed = call.output.inner;
  auto* sums = reinterpret_cast<float*>(task.scratch);
  float* h = sums + 2 * panels_of(rows) * kPanel * kPanel;
  float* normed = h + rows * hidden;
  float* gated = normed + rows * hidden;
  const auto product = [&](const float* x, const PackedLayer& layer, const float* added,
                           float* out) {
    multiply_panels<S>(x, layer.inner, rows, layer, 0, panels_of(hidden), sums,
                       {hidden, layer.bias, added, out, hidden});
  };
  product(call.mixed + task.row_begin * mixed, call.output, call.x + task.row_begin * hidden, h);
  rms_norm_rows<S>({h, call.norm, normed, rows, hidden, call.eps}, 0, rows);
  multiply_and_gate<S>(call, normed, rows, sums, gated);
  product(gated, call.down, h, call.out + task.row_begin * hidden);
}

template <class S>
void transpose_rows(const Transpose& call) {
  constexpr int W = S::kWidth;
  for (std::int64_t row = 0; row < call.rows; row += W) {
    const float* from = call.from + row * call.from_stride;
    const std::int64_t rows = call.rows - row < W ? call.rows - row : W;
    std::int64_t c = 0;
    for (; rows == W && c + 4 <= call.columns; c += 4) {
      S::transpose_four(from + c, call.from_stride, call.to + c * call.to_stride + row,
                        call.to_stride);
    }
    for (; c < call.columns; ++c) {
      for (std::int64_t r = 0; r < rows; ++r) {
        call.to[c * call.to_stride + row + r] = from[r * call.from_stride + c];
      }
    }
  }
}

// Up to `count` values of a row of W as float32.
template <class S>
ATTAR_INLINE void read_row(const PackMatrix& call, std::int64_t at, std::int64_t count,
                           float* out) {
  constexpr int W = S::kWidth;
  if (call.type == PackType::f32) {
    __builtin_memcpy(out, static_cast<const float*>(call.values) + at,
                     static_cast<std::size_t>(count) * 4);
    return;
  }
  const auto* from = static_cast<const std::uint16_t*>(call.values) + at;
  const auto widen = [&](const std::uint16_t* halves) {
    return call.type == PackType::f16 ? S::from_f16(halves) : S::from_bf16(halves);
  };
  std::int64_t i = 0;
  for (; i + W <= count; i += W) S::store(out + i, widen(from + i));
  if (i == count) return;
  std::uint16_t rest[W] = {};
  __builtin_memcpy(rest, from + i, static_cast<std::size_t>(count - i) * 2);
  S::store_first(out + i, widen(rest), count - i);
}

// Outputs [begin, end) of a panel that holds values of 16 bits.
inline void pack_halves(const PackMatrix& call, std::int64_t panel, std::int64_t begin,
                        std::int64_t end) {
  constexpr std::int64_t kPart = 64;  // inputs at a time
  const auto* from =
      static_cast<const std::uint16_t*>(call.values) + (panel * kPanel - call.first) * call.inner;
  auto* to = static_cast<std::uint16_t*>(call.weights) + panel * call.inner * kPanel;
  for (std::int64_t part = 0; part < call.inner; part += kPart) {
    const std::int64_t stop = call.inner - part < kPart ? call.inner : part + kPart;
    for (std::int64_t c = begin; c < end; ++c) {
      for (std::int64_t k = part; k < stop; ++k) to[k * kPanel + c] = from[c * call.inner + k];
    }
  }
}

template <class S>
int pack_panel_of(const PackMatrix& call, std::int64_t panel) {
  constexpr std::int64_t kPart = 64;                        // inputs at a time
  const std::int64_t column = panel * kPanel - call.first;  // of the first output of the panel
  const std::int64_t begin = column < 0 ? -column : 0;
  const std::int64_t end = call.count - column < kPanel ? call.count - column : kPanel;
  if (call.held != PackType::f32) {
    pack_halves(call, panel, begin, end);
    return 1;
  }
  float* to = static_cast<float*>(call.weights) + panel * call.inner * kPanel;
  if (call.turned) {
    const auto* from = static_cast<const float*>(call.values) + column;
    const std::int64_t stride = call.stride ? call.stride : call.count;
    const bool whole = begin == 0 && end == kPanel;
    for (std::int64_t k = 0; k < call.inner; ++k) {
      float* out = to + k * kPanel;
      if (whole) {
        for (int c = 0; c < kPanel; c += S::kWidth)
          S::store(out + c, S::load(from + k * stride + c));
      } else {
        for (std::int64_t c = begin; c < end; ++c) out[c] = from[k * stride + c];
      }
    }
    return 1;
  }
  alignas(64) float part[kPanel * kPart];
  for (std::int64_t k = 0; k < call.inner; k += kPart) {
    const std::int64_t inputs = call.inner - k < kPart ? call.inner - k : kPart;
    for (std::int64_t c = begin; c < end; ++c) {
      read_row<S>(call, (column + c) * call.inner + k, inputs, part + c * kPart);
    }
    transpose_rows<S>(
        {part + begin * kPart, kPart, end - begin, inputs, to + k * kPanel + begin, kPanel});
  }
  return 1;
}

}  // namespace attar::kernels
