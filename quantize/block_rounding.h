// Learns how the weights of one block are rounded, by gradients of the block's own outputs
// (SignRound, Cheng et al. 2023, arXiv:2309.05516; BRECQ, Li et al. 2021, arXiv:2102.05426).
//
// A weight keeps a place u between the codes (of a table or a number format: between the numbers of
// its levels in their order), and is the value of the nearest code; gradients pass
// through the rounding as if it were not there. u begins at the code that an earlier pass chose, as
// near to the plain weight as that code allows, so that the start is that pass's block, bit by bit.
//
// Shapes: N windows of T tokens; hidden states [N, T, hidden] float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/calibrate/stream.h"
#include "compress/core/config.h"
#include "compress/core/pass.h"

namespace attar {

struct BlockRoundingOptions {
  std::int64_t steps = 100;
  std::int64_t batch = 4;       // windows of a step
  double learning_rate = 1e-3;  // at its highest: of u in codes, of grids in shares of the scale
  bool scales = true;           // scales and real minima learn too
  std::int64_t held_out = 8;    // windows, evenly spread, that judge start and end
};

struct BlockRounding {
  Block block;
  std::vector<Role> learnt;          // layers whose rounding did
  std::int64_t codes = 0;            // of the layers that learnt
  std::int64_t changed = 0;          // codes that are others
  std::int64_t nonfinite_steps = 0;  // left out
  // sum_t w_t |y_t - target_t|^2 / sum_t w_t |target_t - x_t|^2 over the held-out windows.
  double before = 0, after = 0;
  bool kept_start = false;  // it was no better: `block` is the one that came in
};

// `rounded` has layers in codes, `plain` is the block before it was rounded (of the same widths).
// By role, weights where `kept` [O, I] is 0 stay 0; undefined: none. Zeros of integer grids and
// scales of super-blocks and number formats stay. The same bits for any number of threads. Memory:
// values, gradients and moments of the block, 6 x 4 bytes a weight, and the activations of 1024
// tokens or a window with their graph.
BlockRounding learn_rounding(const ModelConfig& config, const Block& rounded, const Block& plain,
                             std::span<const at::Tensor, kRoles.size()> kept, const BlockEnds& ends,
                             const BlockRoundingOptions& options, const RunContext& context);

}  // namespace attar
