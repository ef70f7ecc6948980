// The scales of block grids (BlockGrid): group by group as ggml does, or for weighted errors.
#pragma once

#include <optional>
#include <vector>

#include "compress/core/grid.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace attar {

kernels::GgmlBlock ggml_block_of(BlockGrid grid);

// Chooses the grid of a weight.
//   values  [O, I] float32, finite, contiguous; I a multiple of the scheme's block_columns
//   search  false: scales as ggml's quantizer chooses them without an importance matrix. true:
//           lowest squared error weighted by `cost` that alternating searches find: group scales
//           by trial, their codes and neighbours on the super-block's grid, d and m by least
//           squares, again.
//   cost    [I] > 0, what a squared error costs in each column; used by the search
Grid choose_block_grid(const at::Tensor& values, BlockGrid block, bool search,
                       const std::vector<float>& cost);

// The numbers of a super-block: scale[g] = d a[g], zero[g] = -m b[g].
struct SuperParts {
  float d = 0, m = 0;  // float16 values
  std::int8_t a[16] = {};
  std::int8_t b[16] = {};
};
// From the scales and zeros (null where the grid has none) of one super-block; empty when no d and
// m in float16 give them with codes in the range of the type.
std::optional<SuperParts> super_parts(BlockGrid block, const float* scale, const float* zero);

}  // namespace attar
