// How packed weights and rounded rows lie in memory, and the piece of a product that one thread
// does at one go.
//
// Weights come in panels of 16 outputs. A panel is the parameters of its groups, group after group,
// 16 scales and then 16 second parameters, filled up to 64 bytes, and then its codes, block of 32
// inputs after block, in lines of 64 bytes: 4 bytes for each of the 16 outputs, for inputs 4 q + j
// the byte j of step q = 0 .. 7. A block of codes of 8 bits is a line a step. Of fewer bits it is
//
//   4 to 6 bits     lines 0 .. 3: the low four bits of step q and, in the high half, of step q + 4
//   2, 3 and 6      two lines: two bits of step q at bits 2 (q % 4) of line q / 4
//   3 and 5         one line: one bit of step q at bit q
//
// with the later lines above the earlier ones in a code. Parameters of super-blocks are 16 float16
// d, 16 m, then a of every group for 16 outputs, then b, m and b only where there is a second.
#pragma once

#include <cstdint>

#include "compress/kernels/quantized_product/quantized_product.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

inline constexpr std::int64_t kPanelOutputs = kOutputsTogether;
inline constexpr std::int64_t kBlockInputs = 32;
inline constexpr std::int64_t kSuperInputs = 256;
inline constexpr std::int64_t kTileTokens = 16;
inline constexpr std::int64_t kLine = 64;

constexpr std::int64_t line_up(std::int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// Where the first block of a row lies among all; its next one is x.tile further.
constexpr std::int64_t first_block(const RoundedRows& x, std::int64_t row) {
  return row / x.tile * (x.inner / kBlockInputs) * x.tile + row % x.tile;
}

// What is kept of the sums of a block whose values and scale stand already.
ATTAR_INLINE void set_sums(const RoundedRows& out, std::int64_t block, std::int32_t sum) {
  std::int32_t first = 0;
  for (std::int64_t k = 0; k < kBlockInputs / 2; ++k) first += out.values[block * kBlockInputs + k];
  out.sums[block] = out.scales[block] * static_cast<float>(sum);
  out.offsets[block] = -8 * sum;
  out.halves[2 * block] = first;
  out.halves[2 * block + 1] = sum - first;
}

constexpr std::int64_t output_panels(std::int64_t columns) {
  return (columns + kPanelOutputs - 1) / kPanelOutputs;
}
constexpr std::int64_t groups_of(std::int64_t inner, std::int64_t group) {
  return (inner + group - 1) / group;
}
constexpr std::int64_t block_code_bytes(int bits) {
  return kPanelOutputs * kBlockInputs * bits / 8;
}
constexpr std::int64_t group_parameter_bytes(const QuantizedFormat& format) {
  return kPanelOutputs * (format.parameters == HeldAs::f16 ? 2 : 4) *
         (format.second == SecondParameter::none ? 1 : 2);
}
constexpr std::int64_t super_parameter_bytes(const QuantizedFormat& format) {
  return kPanelOutputs * (2 + kSuperInputs / format.group) *
         (format.second == SecondParameter::none ? 1 : 2);
}
constexpr std::int64_t panel_parameter_bytes(std::int64_t inner, const QuantizedFormat& format) {
  if (format.parameters == HeldAs::super) {
    return line_up(inner / kSuperInputs * super_parameter_bytes(format));
  }
  return line_up(groups_of(inner, format.group) * group_parameter_bytes(format));
}
// Whether the codes lie in more than the nibbles and bytes of body.h, or their parameters
// otherwise.
constexpr bool in_planes(const QuantizedFormat& format) {
  return format.parameters == HeldAs::super || format.table != nullptr ||
         format.group < kBlockInputs || (format.bits != 4 && format.bits != 8);
}
constexpr std::int64_t panel_bytes(std::int64_t inner, const QuantizedFormat& format) {
  return panel_parameter_bytes(inner, format) +
         inner / kBlockInputs * block_code_bytes(format.bits);
}

// Throws std::invalid_argument: the rule, and what was there in place of it.
void check_quantized(bool holds, const char* rule, std::int64_t got);

// Sums of some outputs of one token into the product.
template <class V>
ATTAR_INLINE void write_slice(const QuantizedProduct& call, std::int64_t token, std::int64_t output,
                              typename V::Floats sums) {
  const std::int64_t left = call.layer.columns - output;
  if (left <= 0) return;
  if (call.bias) sums = V::add(sums, V::load_first(call.bias + output, left));
  const std::int64_t at = token * call.out_stride + output;
  if (call.added) sums = V::add(sums, V::load_first(call.added + at, left));
  V::store_first(call.out + at, sums, left);
}

// Panels [panel_begin, panel_end) for tiles [tile_begin, tile_end) of tokens.
struct QuantizedTask {
  std::int64_t panel_begin;
  std::int64_t panel_end;
  std::int64_t tile_begin;
  std::int64_t tile_end;
  std::uint8_t* scratch;  // 64-byte aligned, of task_scratch_bytes
};

// One panel with its codes as signed bytes and its parameters as float32; sums of tiles.
constexpr std::int64_t task_scratch_bytes(std::int64_t inner, const QuantizedFormat& format) {
  constexpr std::int64_t kSums = 4096;
  return inner * kPanelOutputs + 2 * 4 * kPanelOutputs * groups_of(inner, format.group) + kSums;
}

}  // namespace attar::kernels
