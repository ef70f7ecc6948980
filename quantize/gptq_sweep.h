// The sweep of GPTQ: columns in order, each rounding error moved onto the columns still free.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/core/grid.h"

namespace attar {

struct SweepPlan {
  at::Tensor upper;                 // [I, I] float32: U with (damped H)^-1 = U^T U, in `order`
  std::vector<std::int64_t> order;  // order[k]: the column that comes k-th
  int block_size = 128;
  at::Tensor keep = {};  // [O, I] uint8, contiguous, or undefined: 0 where a weight is to be 0 (not
                         // on grids of real minima, which need not hold 0)
};

struct Sweep {
  at::Tensor codes;  // [O, I] uint8, columns as in the weight
  Grid grid;
  at::Tensor row_loss;  // [O] double: tr(D H D^T) by rows with damped H, from the sweep's errors
};

// Rounds `weight` [O, I] float32 on a grid that stands.
Sweep sweep_on_grid(const at::Tensor& weight, const Grid& grid, const SweepPlan& plan);

// Chooses the grid of a group when the sweep reaches its first column, from the weights as they
// are then, pending updates included. `plan.order` must be the natural one.
//   column_weights  [I] double or undefined, as for choose_grid
Sweep sweep_with_live_groups(const at::Tensor& weight, const QuantScheme& scheme,
                             const GridOptions& options, const at::Tensor& column_weights,
                             const SweepPlan& plan);

}  // namespace attar
