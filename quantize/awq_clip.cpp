// The clip search of AWQ.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>

#include <limits>

#include "compress/core/errors.h"
#include "compress/linalg/quadratic_loss.h"
#include "quantize/awq.h"
#include "quantize/gptq_refine.h"

namespace attar {

Grid search_clipped_grid(const at::Tensor& weight, const at::Tensor& gram,
                         const QuantScheme& scheme, int shrink_steps) {
  check_scheme(scheme, weight.size(-1));
  require<UsageError>(shrink_steps >= 1 && shrink_steps <= 20, "awq",
                      "shrink_steps must be in [1, 20], got ", shrink_steps);
  require<UsageError>(scheme.block == BlockGrid::kNone, "awq",
                      "the clip search is for plain grids, ", to_string(scheme.block),
                      " shares scales between groups; set clip: false");
  const std::int64_t rows = weight.size(0);
  const std::int64_t columns = weight.size(1);
  const std::int64_t groups = scheme.groups(columns);
  const std::int64_t group = columns / groups;
  const at::Tensor hessian = gram.to(at::kFloat).contiguous();
  const at::Tensor values = weight.contiguous();

  Grid best;
  at::Tensor best_loss =
      at::full({rows, groups}, std::numeric_limits<double>::infinity(), at::kDouble);
  for (int i = 0; i < shrink_steps; ++i) {
    const Grid grid = choose_grid(values * (1 - 0.05 * i), scheme);  // the range shrinks with it
    const at::Tensor rounded = dequantize(quantize_to_grid(values, grid).codes, grid);
    at::Tensor loss = at::empty({rows, groups}, at::kDouble);
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto columns_of = [&](const at::Tensor& matrix) {
        return matrix.narrow(1, g * group, group).contiguous();
      };
      loss.select(1, g).copy_(linalg::row_losses(columns_of(values), columns_of(rounded),
                                                 columns_of(hessian.narrow(0, g * group, group))));
    }
    if (i == 0) best = grid;
    const at::Tensor better = loss.lt(best_loss);
    best.scale = at::where(better, grid.scale, best.scale);
    if (grid.zero.defined()) best.zero = at::where(better, grid.zero, best.zero);
    best_loss = at::where(better, loss, best_loss);
  }
  return best;
}

}  // namespace attar
