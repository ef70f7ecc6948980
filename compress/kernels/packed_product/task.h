// A piece of one product that one thread does at one go, and the memory that it needs.
#pragma once

#include <cstdint>

#include "compress/kernels/packed_product/packed_product.h"

namespace attar::kernels {

inline constexpr std::int64_t kPanel = 32;  // outputs, inputs and rows that are packed together

constexpr std::int64_t panels_of(std::int64_t count) { return (count + kPanel - 1) / kPanel; }

struct PackedTask {
  std::int64_t row_begin;
  std::int64_t row_end;
  std::int64_t panel_begin;  // panels of outputs, of a product
  std::int64_t panel_end;
  std::uint8_t* scratch;  // 64-byte aligned
};

// Rows that are turned over, see Variant::transpose.
struct Transpose {
  const float* from;  // [rows, columns]
  std::int64_t from_stride;
  std::int64_t rows;
  std::int64_t columns;
  float* to;  // [columns, rows]
  std::int64_t to_stride;
};

// Three pieces of `rows` rows.
constexpr std::int64_t pieces_bytes(std::int64_t rows, std::int64_t inner) {
  return panels_of(rows) * panels_of(inner) * kPanel * kPanel * 3 * 2;
}

// A panel of rows as float32, in whole cache lines.
constexpr std::int64_t strip_bytes(std::int64_t columns) { return kPanel * columns * 4; }

// Either kind of panel: pieces and a strip of norms, or sums of a panel and all norms.
constexpr std::int64_t scratch_bytes(const PackedProduct& call, std::int64_t rows) {
  return pieces_bytes(rows, call.layer.inner) + strip_bytes(panels_of(rows) * kPanel) +
         (call.norm ? strip_bytes(call.layer.inner) : 0);
}

constexpr std::int64_t scratch_bytes(const PackedFinish& call, std::int64_t rows) {
  const std::int64_t hidden = call.output.columns;
  const std::int64_t wider = call.output.inner > hidden ? call.output.inner : hidden;
  return pieces_bytes(rows, wider) + pieces_bytes(rows, call.down.inner) +
         2 * strip_bytes(panels_of(rows) * kPanel) + strip_bytes(hidden) * (panels_of(rows) + 1);
}

}  // namespace attar::kernels
