// How much memory the phases of a run need at their peak, summed up from what they allocate, from
// shapes alone; only what the program itself and a vocabulary cost is measured. `attar plan` prints
// the result, tests/bench/memory.py holds it against the peak of a run (VmHWM).
#pragma once

#include <cstdint>

#include "compress/core/config.h"

namespace attar {

struct CalibrationShape {
  std::int64_t sequences = 0;
  std::int64_t length = 0;
  std::int64_t batch = 1;
  bool dense_stream = false;   // the unchanged model's activations beside
  bool block_outputs = false;  // and the outputs that a block is to have
};

// Parameters of the linear layers of one block (the widest), and of all blocks.
std::int64_t block_parameters(const ModelConfig& config);
std::int64_t linear_parameters(const ModelConfig& config);

// Blockwise passes over a calibration stream: what they all hold, and on top of it the larger of
// the widest statistics being summed up (beside the prepared block) and the pass at work on them.
//   working_bytes   of the most demanding pass (Pass::working_bytes)
//   source_bytes    of one block as the source stores it
std::int64_t blockwise_peak_bytes(const ModelConfig& config, const CalibrationShape& calibration,
                                  std::int64_t working_bytes, std::int64_t source_bytes);

// While gradients say what tokens weigh (compress/train/token_weights.h).
std::int64_t weighting_peak_bytes(const ModelConfig& config, std::int64_t length,
                                  std::int64_t source_bytes);

// Two models side by side over `tokens` tokens in windows of `length`, block by block
// (block_walk.h). `heads`: 1 when they share the head.
std::int64_t divergence_peak_bytes(const ModelConfig& config, std::int64_t tokens,
                                   std::int64_t length, std::int64_t heads);

// One model prepared whole to answer tasks, prompts of up to `length` tokens.
std::int64_t tasks_peak_bytes(const ModelConfig& config, std::int64_t length);

// Export: one block in memory.
std::int64_t export_peak_bytes(const ModelConfig& config);

// Floating-point operations of one forward pass of one token through the blocks (without the head).
double forward_flops(const ModelConfig& config, std::int64_t length);
double head_flops(const ModelConfig& config);

}  // namespace attar
