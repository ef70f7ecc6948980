#include "quantize/gptq_sweep.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "compress/linalg/blas.h"
#include "quantize/group_search.h"

namespace attar {
namespace {

// One row inside of one block: columns [from, to) are fixed, [from, width) receive their errors.
struct RowBlock {
  float* weight;           // [width]
  const float* upper;      // [width, width] part of U
  std::int64_t stride;     // of U
  const GroupGrid* grids;  // [width]
  std::uint8_t* codes;     // [width]
  float* errors;           // [width]: (w - q) / U_ii
  ZeroPoint zero_point;
  float top;
};

ATTAR_CLONES
double fix_columns(const RowBlock& row, std::int64_t from, std::int64_t to, std::int64_t width) {
  float* weight = row.weight;
  double loss = 0;
  for (std::int64_t i = from; i < to; ++i) {
    const float* upper = row.upper + i * row.stride;
    const float code = code_of(weight[i], row.grids[i], row.zero_point, row.top);
    const float error = (weight[i] - value_of(code, row.grids[i], row.zero_point)) / upper[i];
    row.codes[i] = static_cast<std::uint8_t>(static_cast<int>(code));
    row.errors[i] = error;
    loss += static_cast<double>(error) * static_cast<double>(error);
    for (std::int64_t j = i + 1; j < width; ++j) weight[j] -= error * upper[j];
  }
  return loss;
}

// The matrix under work, columns in processing order.
class Sweeper {
 public:
  Sweeper(const at::Tensor& weight, Grid grid, const SweepPlan& plan)
      : rows_(weight.size(0)),
        columns_(weight.size(1)),
        groups_(grid.scheme.groups(columns_)),
        group_size_(columns_ / groups_),
        plan_(plan),
        working_(at::empty({rows_, columns_}, at::kFloat)),
        errors_(at::empty({rows_, plan.block_size}, at::kFloat)) {
    result_ = {at::empty({rows_, columns_}, at::kByte), std::move(grid),
               at::zeros({rows_}, at::kDouble)};
    const at::Tensor source = weight.contiguous();
    const float* from = source.const_data_ptr<float>();
    float* to = working_.data_ptr<float>();
    at::parallel_for(0, rows_, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t k = 0; k < columns_; ++k) {
          to[r * columns_ + k] = from[r * columns_ + plan_.order[k]];
        }
      }
    });
  }

  // Fixes the columns [begin, end) of all rows. `choose`, if there is one, is called as
  // choose(row, live weights, first column, count) at every start of a group.
  template <class Choose>
  void block(std::int64_t begin, std::int64_t end, bool live, const Choose& choose) {
    const std::int64_t width = end - begin;
    const float* upper = plan_.upper.const_data_ptr<float>();
    float* errors = errors_.data_ptr<float>();
    at::parallel_for(0, rows_, 32, [&](std::int64_t first, std::int64_t last) {
      std::vector<GroupGrid> grids(static_cast<std::size_t>(width));
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(width));
      for (std::int64_t r = first; r < last; ++r) {
        const RowBlock row{working() + r * columns_ + begin,
                           upper + begin * columns_ + begin,
                           columns_,
                           grids.data(),
                           codes.data(),
                           errors + r * width,
                           result_.grid.scheme.zero_point,
                           static_cast<float>(result_.grid.scheme.levels() - 1)};
        double loss = 0;
        const std::int64_t step = live ? std::min(group_size_, width) : width;
        for (std::int64_t i = 0; i < width; i += step) {
          if (live && (begin + i) % group_size_ == 0) choose(r, row.weight + i, begin + i);
          for (std::int64_t k = i; k < i + step; ++k) grids[k] = grid_at(r, begin + k);
          loss += fix_columns(row, i, i + step, width);
        }
        result_.row_loss.data_ptr<double>()[r] += loss;
        std::uint8_t* out = result_.codes.data_ptr<std::uint8_t>() + r * columns_;
        for (std::int64_t k = 0; k < width; ++k) out[plan_.order[begin + k]] = codes[k];
      }
    });
    const auto side = static_cast<int>(columns_);
    if (end < columns_) {
      linalg::gemm(false, false, static_cast<int>(rows_), static_cast<int>(columns_ - end),
                   static_cast<int>(width), -1.0f, errors, static_cast<int>(width),
                   upper + begin * columns_ + end, side, 1.0f, working() + end, side);
    }
  }

  std::int64_t columns() const { return columns_; }
  std::int64_t group_size() const { return group_size_; }
  std::int64_t groups() const { return groups_; }
  Sweep& result() { return result_; }

 private:
  float* working() { return working_.data_ptr<float>(); }

  GroupGrid grid_at(std::int64_t row, std::int64_t position) const {
    const Grid& grid = result_.grid;
    const std::int64_t index = row * groups_ + plan_.order[position] / group_size_;
    const float zero = grid.scheme.zero_point == ZeroPoint::kSymmetric
                           ? static_cast<float>(grid.scheme.levels() / 2)
                           : grid.zero.const_data_ptr<float>()[index];
    return {grid.scale.const_data_ptr<float>()[index], zero};
  }

  std::int64_t rows_;
  std::int64_t columns_;
  std::int64_t groups_;
  std::int64_t group_size_;
  const SweepPlan& plan_;
  at::Tensor working_;  // [O, I] float32, in processing order
  at::Tensor errors_;   // [O, block] float32
  Sweep result_;
};

// Ends of blocks that hold whole groups, or lie within one.
std::int64_t live_block_end(std::int64_t begin, std::int64_t group, std::int64_t block,
                            std::int64_t columns) {
  if (group <= block) return std::min(begin + block / group * group, columns);
  const std::int64_t group_end = (begin / group + 1) * group;
  return std::min(begin + block, group_end);
}

}  // namespace

Sweep sweep_on_grid(const at::Tensor& weight, const Grid& grid, const SweepPlan& plan) {
  Sweeper sweeper(weight, grid, plan);
  for (std::int64_t begin = 0; begin < sweeper.columns(); begin += plan.block_size) {
    sweeper.block(begin, std::min<std::int64_t>(begin + plan.block_size, sweeper.columns()), false,
                  [](std::int64_t, const float*, std::int64_t) {});
  }
  return std::move(sweeper.result());
}

Sweep sweep_with_live_groups(const at::Tensor& weight, const QuantScheme& scheme,
                             const GridOptions& options, const at::Tensor& column_weights,
                             const SweepPlan& plan) {
  const std::vector<float> cost = column_costs(column_weights, weight.size(1));
  Grid grid{scheme, at::empty({weight.size(0), scheme.groups(weight.size(1))}, at::kFloat), {}};
  if (scheme.zero_point != ZeroPoint::kSymmetric) grid.zero = at::empty_like(grid.scale);
  float* scale = grid.scale.data_ptr<float>();
  float* zero = grid.zero.defined() ? grid.zero.data_ptr<float>() : nullptr;
  const GroupRule rule = rule_of(scheme, options);

  Sweeper sweeper(weight, std::move(grid), plan);
  const auto choose = [&](std::int64_t row, const float* live, std::int64_t first) {
    const GroupGrid chosen = choose_group(live, cost.data() + first, sweeper.group_size(), rule);
    const std::int64_t index = row * sweeper.groups() + first / sweeper.group_size();
    scale[index] = chosen.scale;
    if (zero != nullptr) zero[index] = chosen.zero;
  };
  for (std::int64_t begin = 0; begin < sweeper.columns();) {
    const std::int64_t end =
        live_block_end(begin, sweeper.group_size(), plan.block_size, sweeper.columns());
    sweeper.block(begin, end, true, choose);
    begin = end;
  }
  return std::move(sweeper.result());
}

}  // namespace attar
