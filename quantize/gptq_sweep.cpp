#include "quantize/gptq_sweep.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "compress/core/group_search.h"
#include "compress/linalg/clones.h"
#include "compress/linalg/column_sweep.h"

namespace attar {
namespace {

// Where the codes of one row inside of one block come from.
struct RowCodes {
  const GroupGrid* grids;    // [width]
  const std::uint8_t* keep;  // [width] or null: 0 where the weight is to be exactly 0
  std::uint8_t* codes;       // [width]
  GroupRule rule;
};

// Columns [from, to) are fixed, [from, width) receive their errors.
ATTAR_CLONES
double fix_columns(const linalg::SweepRow& row, const RowCodes& out, std::int64_t from,
                   std::int64_t to, std::int64_t width) {
  float* weight = row.weight;
  double loss = 0;
  for (std::int64_t i = from; i < to; ++i) {
    const float* upper = row.upper + i * row.stride;
    const bool kept = out.keep == nullptr || out.keep[i] != 0;
    const float code = kept ? out.rule.code(weight[i], out.grids[i]) : out.grids[i].zero;
    const float error = (weight[i] - out.rule.value(code, out.grids[i])) / upper[i];
    out.codes[i] = static_cast<std::uint8_t>(static_cast<int>(code));
    row.errors[i] = error;
    loss += static_cast<double>(error) * static_cast<double>(error);
    for (std::int64_t j = i + 1; j < width; ++j) weight[j] -= error * upper[j];
  }
  return loss;
}

// Turns the columns of the sweep into codes.
class Sweeper {
 public:
  Sweeper(const at::Tensor& weight, Grid grid, const SweepPlan& plan)
      : sweep_(weight, plan.upper, plan.order, plan.block_size),
        groups_(grid.scheme.groups(sweep_.columns())),
        group_size_(sweep_.columns() / groups_),
        keep_(plan.keep.defined() ? plan.keep.const_data_ptr<std::uint8_t>() : nullptr) {
    result_ = {at::empty({sweep_.rows(), sweep_.columns()}, at::kByte), std::move(grid),
               at::zeros({sweep_.rows()}, at::kDouble)};
  }

  // Fixes the columns [begin, end) of all rows. `choose`, if there is one, is called as
  // choose(row, live weights, first column, count) at every start of a group.
  template <class Choose>
  void block(std::int64_t begin, std::int64_t end, bool live, const Choose& choose) {
    const std::int64_t width = end - begin, columns = sweep_.columns();
    sweep_.block(begin, end, [&](std::int64_t first, std::int64_t last, const auto& row_of) {
      std::vector<GroupGrid> grids(static_cast<std::size_t>(width));
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(width)), keep(codes.size());
      const RowCodes out{grids.data(), keep_ == nullptr ? nullptr : keep.data(), codes.data(),
                         rule_of(result_.grid.scheme)};
      for (std::int64_t r = first; r < last; ++r) {
        const linalg::SweepRow row = row_of(r);
        for (std::int64_t k = 0; keep_ != nullptr && k < width; ++k) {
          keep[k] = keep_[r * columns + sweep_.order()[begin + k]];
        }
        double loss = 0;
        const std::int64_t step = live ? std::min(group_size_, width) : width;
        for (std::int64_t i = 0; i < width; i += step) {
          if (live && (begin + i) % group_size_ == 0) choose(r, row.weight + i, begin + i);
          for (std::int64_t k = i; k < i + step; ++k) grids[k] = grid_at(r, begin + k);
          loss += fix_columns(row, out, i, i + step, width);
        }
        result_.row_loss.data_ptr<double>()[r] += loss;
        std::uint8_t* found = result_.codes.data_ptr<std::uint8_t>() + r * columns;
        for (std::int64_t k = 0; k < width; ++k) found[sweep_.order()[begin + k]] = codes[k];
      }
    });
  }

  std::int64_t columns() const { return sweep_.columns(); }
  std::int64_t group_size() const { return group_size_; }
  std::int64_t groups() const { return groups_; }
  Sweep& result() { return result_; }

 private:
  GroupGrid grid_at(std::int64_t row, std::int64_t position) const {
    const Grid& grid = result_.grid;
    const std::int64_t index = row * groups_ + sweep_.order()[position] / group_size_;
    const float zero = grid.scheme.zero_point == ZeroPoint::kSymmetric
                           ? zero_code(grid.scheme)
                           : grid.zero.const_data_ptr<float>()[index];
    return {grid.scale.const_data_ptr<float>()[index], zero};
  }

  linalg::ColumnSweep sweep_;
  std::int64_t groups_;
  std::int64_t group_size_;
  const std::uint8_t* keep_;  // [O, I] or null
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
