// How packed weights and rounded rows lie in memory, and the piece of a product that one thread
// does at one go.
//
// Weights come in panels of 16 outputs. A panel is the parameters of its groups, group after group,
// 16 scales and then 16 second parameters, filled up to 64 bytes, and then its codes, block of 32
// inputs after block, in lines of 64 bytes: 4 bytes for each of the 16 outputs. Of 4 bits, byte j
// of line q holds input 4 q + j in its low half and 16 + 4 q + j in its high half; of 8 bits, input
// 4 q + j.
#pragma once

#include <cstdint>

#include "compress/kernels/quantized_product/quantized_product.h"

namespace attar::kernels {

inline constexpr std::int64_t kPanelOutputs = kOutputsTogether;
inline constexpr std::int64_t kBlockInputs = 32;
inline constexpr std::int64_t kTileTokens = 16;
inline constexpr std::int64_t kLine = 64;

constexpr std::int64_t line_up(std::int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// Where the first block of a row lies among all; its next one is x.tile further.
constexpr std::int64_t first_block(const RoundedRows& x, std::int64_t row) {
  return row / x.tile * (x.inner / kBlockInputs) * x.tile + row % x.tile;
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
  return kPanelOutputs * (format.half ? 2 : 4) * (format.second == SecondParameter::none ? 1 : 2);
}
constexpr std::int64_t panel_parameter_bytes(std::int64_t inner, const QuantizedFormat& format) {
  return line_up(groups_of(inner, format.group) * group_parameter_bytes(format));
}
constexpr std::int64_t panel_bytes(std::int64_t inner, const QuantizedFormat& format) {
  return panel_parameter_bytes(inner, format) +
         inner / kBlockInputs * block_code_bytes(format.bits);
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
