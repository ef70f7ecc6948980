// A piece of one product that one thread does at one go.
#pragma once

#include <cstdint>

namespace attar::kernels {

inline constexpr std::int64_t kPanel = 32;  // outputs, inputs and rows that are packed together

constexpr std::int64_t panels_of(std::int64_t count) { return (count + kPanel - 1) / kPanel; }

struct SplitTask {
  std::int64_t row_begin;
  std::int64_t row_end;
  std::int64_t panel_begin;  // panels of outputs
  std::int64_t panel_end;
  void* scratch;  // split_scratch_bytes(rows, inner), 64-byte aligned
};

// Room for three pieces of `rows` rows.
constexpr std::int64_t split_scratch_bytes(std::int64_t rows, std::int64_t inner) {
  return panels_of(rows) * panels_of(inner) * kPanel * kPanel * 3 * 2;
}

}  // namespace attar::kernels
