#include "prune/sparsegpt.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/group_rule.h"
#include "compress/linalg/clones.h"
#include "compress/linalg/column_sweep.h"
#include "compress/linalg/kept_refit.h"
#include "compress/linalg/quadratic_loss.h"
#include "prune/magnitude.h"

namespace attar {
namespace {

void check_input(const at::Tensor& weight, const linalg::SweepHessian& hessian,
                 const SparsityPattern& pattern, const SparseGptOptions& options,
                 std::string_view where) {
  require<UsageError>(weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.numel() > 0,
                      where, "the weight must be float32 [outputs, inputs], got ", weight.sizes(),
                      " of ", c10::toString(weight.scalar_type()), "; convert it first");
  const std::int64_t n = weight.size(1);
  require<UsageError>(hessian.columns() == n, where, "the Hessian must be float64 [", n, ", ", n,
                      "], got ", hessian.values.sizes(),
                      "; use the statistics of this layer's input");
  require<UsageError>(std::is_sorted(hessian.order.begin(), hessian.order.end()), where,
                      "the columns are cut in their own order; prepare the Hessian without "
                      "act_order");
  require<UsageError>(options.block_size >= 1 && options.block_size <= 4096, where,
                      "block_size must be in [1, 4096], got ", options.block_size);
  require<UsageError>(options.refits >= 0, where, "refits must not be negative, got ",
                      options.refits);
  require<UsageError>(
      !options.scheme || options.scheme->holds_zero(), where,
      "a grid of real minima or of a table need not hold 0; use a symmetric one or integer zeros");
  check_pattern(pattern, n, where);
  if (options.scheme) check_scheme(*options.scheme, n);
  check_finite(weight, where);
}

// One row inside of one block, with what is decided about it.
struct RowCut {
  std::uint8_t* keep;      // [width]
  const GroupGrid* grids;  // [width], or null: nothing is rounded
  std::uint8_t* codes;     // [width], with grids
  ZeroPoint zero_point;
  float top;
};

// Columns [from, to) take their final value in place, [from, width) receive their errors.
ATTAR_CLONES
double fix_columns(const linalg::SweepRow& row, const RowCut& cut, std::int64_t from,
                   std::int64_t to, std::int64_t width) {
  float* weight = row.weight;
  double loss = 0;
  for (std::int64_t i = from; i < to; ++i) {
    const float* upper = row.upper + i * row.stride;
    float value = cut.keep[i] != 0 ? weight[i] : 0.0f;
    if (cut.grids != nullptr) {
      const float code = cut.keep[i] != 0
                             ? code_of(weight[i], cut.grids[i], cut.zero_point, cut.top)
                             : cut.grids[i].zero;
      cut.codes[i] = static_cast<std::uint8_t>(static_cast<int>(code));
      value = value_of(code, cut.grids[i], cut.zero_point);
    }
    const float error = (weight[i] - value) / upper[i];
    row.errors[i] = error;
    weight[i] = value;
    if (error == 0) continue;
    loss += static_cast<double>(error) * static_cast<double>(error);
    for (std::int64_t j = i + 1; j < width; ++j) weight[j] -= error * upper[j];
  }
  return loss;
}

class Pruner {
 public:
  Pruner(const at::Tensor& weight, const at::Tensor& upper, std::vector<std::int64_t> order,
         const SparsityPattern& pattern, std::int64_t block_size, const Grid* grid)
      : pattern_(pattern),
        grid_(grid),
        sweep_(weight, upper, std::move(order), block_size),
        keep_(at::empty(weight.sizes(), at::kByte)),
        row_loss_(at::zeros({weight.size(0)}, at::kDouble)) {
    if (grid_) codes_ = at::empty(weight.sizes(), at::kByte);
  }

  void block(std::int64_t begin, std::int64_t end) {
    const std::int64_t width = end - begin;
    if (!pattern_.in_groups()) cut_block(begin, width);
    sweep_.block(begin, end, [&](std::int64_t first, std::int64_t last, const auto& row_of) {
      std::vector<GroupGrid> grids(static_cast<std::size_t>(width));
      for (std::int64_t r = first; r < last; ++r) {
        const std::int64_t at = r * columns() + begin;
        RowCut cut{keep_.data_ptr<std::uint8_t>() + at, nullptr, nullptr, {}, 0};
        if (grid_) {
          for (std::int64_t k = 0; k < width; ++k) grids[k] = grid_at(r, begin + k);
          cut.grids = grids.data();
          cut.codes = codes_.data_ptr<std::uint8_t>() + at;
          cut.zero_point = grid_->scheme.zero_point;
          cut.top = static_cast<float>(grid_->scheme.levels() - 1);
        }
        row_loss_.data_ptr<double>()[r] += fix_row(row_of(r), cut, width);
      }
    });
  }

  at::Tensor values() { return at::from_blob(sweep_.working(), keep_.sizes(), at::kFloat).clone(); }
  const at::Tensor& keep() const { return keep_; }
  const at::Tensor& codes() const { return codes_; }
  double loss() const { return linalg::total(row_loss_); }
  std::int64_t columns() const { return sweep_.columns(); }

 private:
  // w^2 / U_jj^2 of a row's columns [from, from + count).
  static void score(const linalg::SweepRow& row, std::int64_t from, std::int64_t count,
                    float* scores) {
    for (std::int64_t k = 0; k < count; ++k) {
      const float ratio = row.weight[from + k] / row.upper[(from + k) * (row.stride + 1)];
      scores[k] = ratio * ratio;
    }
  }

  // Unstructured: the share of this block, of all its rows and columns together. Blocks before it
  // have cut floor(sparsity * rows * begin).
  void cut_block(std::int64_t begin, std::int64_t width) {
    const std::int64_t rows = sweep_.rows();
    std::vector<float> scores(static_cast<std::size_t>(rows * width));
    for (std::int64_t r = 0; r < rows; ++r) {
      const linalg::SweepRow row{sweep_.working() + r * columns() + begin,
                                 sweep_.upper() + begin * columns() + begin, columns(), nullptr};
      score(row, 0, width, scores.data() + r * width);
    }
    const std::int64_t cut = cut_count(pattern_.sparsity, rows * (begin + width)) -
                             cut_count(pattern_.sparsity, rows * begin);
    std::vector<std::uint8_t> keep(scores.size());
    cut_lowest(scores.data(), rows * width, cut, keep.data());
    auto* out = keep_.data_ptr<std::uint8_t>();
    for (std::int64_t r = 0; r < rows; ++r) {
      std::copy_n(keep.data() + r * width, width, out + r * columns() + begin);
    }
  }

  double fix_row(const linalg::SweepRow& row, const RowCut& cut, std::int64_t width) const {
    if (!pattern_.in_groups()) return fix_columns(row, cut, 0, width, width);
    double loss = 0;
    float scores[64];
    for (std::int64_t i = 0; i < width; i += pattern_.of) {
      score(row, i, pattern_.of, scores);
      cut_lowest(scores, pattern_.of, pattern_.of - pattern_.keep, cut.keep + i);
      loss += fix_columns(row, cut, i, i + pattern_.of, width);
    }
    return loss;
  }

  GroupGrid grid_at(std::int64_t row, std::int64_t column) const {
    const std::int64_t groups = grid_->scheme.groups(columns());
    const std::int64_t index = row * groups + column / (columns() / groups);
    const float zero = grid_->scheme.zero_point == ZeroPoint::kSymmetric
                           ? static_cast<float>(grid_->scheme.levels() / 2)
                           : grid_->zero.const_data_ptr<float>()[index];
    return {grid_->scale.const_data_ptr<float>()[index], zero};
  }

  const SparsityPattern& pattern_;
  const Grid* grid_;
  linalg::ColumnSweep sweep_;
  at::Tensor keep_;   // [O, I] uint8
  at::Tensor codes_;  // [O, I] uint8, with a grid
  at::Tensor row_loss_;
};

// A share of tr(W H W^T).
double relative_loss(const at::Tensor& weight, const at::Tensor& values,
                     const at::Tensor& hessian) {
  const double size = linalg::hessian_loss(at::zeros_like(weight), weight, hessian);
  return size > 0 ? linalg::hessian_loss(weight, values, hessian) / size : 0;
}

void cut_by_magnitude(const at::Tensor& weight, const SparsityPattern& pattern,
                      const SparseGptOptions& options, SparseGptResult& result) {
  result.cut_plainly = true;
  result.fallbacks.push_back("cut by magnitude");
  result.keep = magnitude_mask(weight, pattern);
  result.values = weight * result.keep;
  if (!options.scheme) return;
  const Grid grid = choose_grid(result.values, *options.scheme, {options.search, false});
  result.quantized = quantize_to_grid(result.values, grid);
  result.values = dequantize(result.quantized->codes, grid);
}

}  // namespace

SparseGptResult sparsegpt_prune(const at::Tensor& weight, const linalg::SweepHessian& hessian,
                                const SparsityPattern& pattern, const SparseGptOptions& options,
                                std::string_view where) {
  check_input(weight, hessian, pattern, options, where);
  const std::int64_t columns = weight.size(1);
  const at::Tensor& h = hessian.values;
  SparseGptResult result;
  result.magnitude_loss = relative_loss(weight, weight * magnitude_mask(weight, pattern), h);
  result.fallbacks = hessian.inverse.failures;
  result.damping = hessian.inverse.damping;
  if (!hessian.inverse.ok()) {
    require<NumericRefusal>(options.cut_plainly_on_failure, where, result.fallbacks.back(),
                            "; give more calibration text, or allow plain cutting");
    cut_by_magnitude(weight, pattern, options, result);
    result.loss = relative_loss(weight, result.values, h);
    return result;
  }

  at::Tensor target = weight.clone().contiguous();
  for (std::int64_t j = 0; j < columns; ++j) {
    if (hessian.diagonal[j] > 0) continue;
    result.dead_columns.push_back(j);
  }
  std::optional<Grid> grid;
  if (options.scheme) {
    grid = choose_grid(target, *options.scheme, {options.search, false}, h.diagonal().clone());
  }
  std::int64_t block_size = options.block_size;
  if (pattern.in_groups()) {  // blocks hold whole groups
    block_size = std::max<std::int64_t>(1, block_size / pattern.of) * pattern.of;
  }
  Pruner pruner(target, hessian.inverse.upper, hessian.order, pattern, block_size,
                grid ? &*grid : nullptr);
  for (std::int64_t begin = 0; begin < columns; begin += block_size) {
    pruner.block(begin, std::min(begin + block_size, columns));
  }
  result.keep = pruner.keep().to(at::kBool);
  result.values = pruner.values();
  if (grid)
    result.quantized = QuantizedWeight{grid->scheme, pruner.codes(), grid->scale, grid->zero};
  const at::Tensor damped = hessian.damped();
  const double found = linalg::hessian_loss(target, result.values, damped), swept = pruner.loss();
  result.identity_gap = swept > 0 ? std::abs(found - swept) / swept : found;
  if (options.refits > 0 && !grid) {
    const at::Tensor metric = linalg::loss_hessian(damped, target.abs().max().item<double>());
    if (metric.scalar_type() == at::kFloat) {
      result.values =
          linalg::refit_kept(target, metric, pruner.keep(), result.values, options.refits);
    }
  }
  result.loss = relative_loss(weight, result.values, h);
  return result;
}

SparseGptResult sparsegpt_prune(const at::Tensor& weight, const at::Tensor& hessian,
                                const SparsityPattern& pattern, const SparseGptOptions& options,
                                std::string_view where) {
  return sparsegpt_prune(
      weight, linalg::prepare_hessian(hessian, /*act_order=*/false, options.damping, where),
      pattern, options, where);
}

}  // namespace attar
