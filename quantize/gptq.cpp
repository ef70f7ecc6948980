#include "quantize/gptq.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"
#include "compress/linalg/quadratic_loss.h"
#include "quantize/gptq_refine.h"
#include "quantize/gptq_sweep.h"
#include "quantize/rtn.h"

namespace attar {
namespace {

void check_input(const at::Tensor& weight, const linalg::SweepHessian& hessian,
                 const QuantScheme& scheme, const GptqOptions& options, std::string_view where) {
  require<UsageError>(weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.numel() > 0,
                      where, "the weight must be float32 [outputs, inputs], got ", weight.sizes(),
                      " of ", c10::toString(weight.scalar_type()), "; convert it first");
  const std::int64_t n = weight.size(1);
  require<UsageError>(hessian.columns() == n, where, "the Hessian must be float64 [", n, ", ", n,
                      "], got ", hessian.values.sizes(),
                      "; use the statistics of this layer's input");
  require<UsageError>(options.block_size >= 1 && options.block_size <= 4096, where,
                      "block_size must be in [1, 4096], got ", options.block_size);
  require<UsageError>(options.refits >= 0 && options.descents >= 0, where,
                      "refits and descents must not be negative, got ", options.refits, " and ",
                      options.descents);
  require<UsageError>(options.static_groups || !options.act_order, where,
                      "act_order needs static_groups: groups of a file are neighbouring columns; "
                      "set static_groups or leave act_order");
  check_scheme(scheme, n);
  if (scheme.block != BlockGrid::kNone) {
    require<UsageError>(options.static_groups && options.refits == 0 && options.descents == 0,
                        where, to_string(scheme.block),
                        " needs static_groups, and neither refits nor descents: its scales are not "
                        "free, or its levels not evenly spaced");
  }
  check_finite(weight, where);
}

// Sum over columns of |D_j|^2 times what damping adds to H_jj.
double cost_of_damping(const at::Tensor& change, const linalg::SweepHessian& hessian) {
  const at::Tensor squares = change.square().sum(0, false, at::kDouble);
  double sum = 0;
  for (std::int64_t j = 0; j < squares.size(0); ++j) {
    sum += squares.const_data_ptr<double>()[j] *
           (hessian.damped_entry(j) - hessian.diagonal[static_cast<std::size_t>(j)]);
  }
  return sum;
}

// What an error costs in each column when grids are chosen: diag H. (1 / U_kk^2, the cost after the
// other columns have made up for it, ends with a lower layer loss but a worse model: KL 0.185 in
// place of 0.154 on SmolLM2 at W4 g64, one seed, 8 windows of WikiText-2.)
at::Tensor column_prices(const std::vector<double>& diagonal) {
  at::Tensor prices = at::empty({static_cast<std::int64_t>(diagonal.size())}, at::kDouble);
  double sum = 0;
  for (const double entry : diagonal) sum += std::max(entry, 0.0);
  // What never spoke counts a little, so that a group of nothing else has a grid of its own.
  const double least = sum > 0 ? 1e-6 * sum / static_cast<double>(diagonal.size()) : 1.0;
  std::transform(diagonal.begin(), diagonal.end(), prices.data_ptr<double>(),
                 [&](double entry) { return entry > 0 ? entry : least; });
  return prices;
}

at::Tensor values_of(const QuantizedWeight& weight) {
  return dequantize(weight.codes, {weight.scheme, weight.scale, weight.zero});
}

// Takes the rows of `candidate` whose loss is lower; how many these are.
std::int64_t take_better_rows(const at::Tensor& weight, const at::Tensor& hessian,
                              const QuantizedWeight& candidate, QuantizedWeight& best,
                              at::Tensor& best_loss) {
  const at::Tensor loss = linalg::row_losses(weight, values_of(candidate), hessian);
  const at::Tensor better = best_loss.le(loss).logical_not();  // also where it is NaN
  const at::Tensor rows = better.unsqueeze(1);
  best.codes = at::where(rows, candidate.codes, best.codes);
  best.scale = at::where(rows, candidate.scale, best.scale);
  if (best.zero.defined()) best.zero = at::where(rows, candidate.zero, best.zero);
  best_loss = at::where(better, loss, best_loss);
  return better.sum().item<std::int64_t>();
}

// Refits of scales and coordinate descent over the codes, under the damped Hessian.
void refine(const at::Tensor& target, const linalg::SweepHessian& hessian,
            const at::Tensor& plain_hessian, const GptqOptions& options, const SweepPlan& plan,
            QuantizedWeight& weight) {
  const at::Tensor damped = plain_hessian.clone();
  for (std::int64_t j = 0; j < hessian.columns(); ++j) {
    damped.data_ptr<float>()[j * (hessian.columns() + 1)] =
        static_cast<float>(hessian.damped_entry(j));
  }
  at::Tensor loss = linalg::row_losses(target, values_of(weight), damped);
  for (int round = 0; round < options.refits; ++round) {
    if (refit_scales(target, damped, weight) == 0) break;
    loss = linalg::row_losses(target, values_of(weight), damped);
    const Sweep again =
        sweep_on_grid(target, {weight.scheme, weight.scale.clone(), weight.zero}, plan);
    const QuantizedWeight swept{weight.scheme, again.codes, again.grid.scale, again.grid.zero};
    take_better_rows(target, damped, swept, weight, loss);
  }
  for (int round = 0; round < options.descents; ++round) {
    if (descend(target, damped, weight, plan.keep) == 0) break;
    if (options.refits > 0) refit_scales(target, damped, weight);
  }
}

}  // namespace

GptqResult gptq_quantize(const at::Tensor& weight, const linalg::SweepHessian& hessian,
                         const QuantScheme& scheme, const GptqOptions& options,
                         std::string_view where) {
  check_input(weight, hessian, scheme, options, where);
  GptqResult result;
  result.damping = hessian.inverse.damping;
  result.fallbacks = hessian.inverse.failures;
  if (!hessian.inverse.ok()) {
    require<NumericRefusal>(options.round_plainly_on_failure, where, result.fallbacks.back(),
                            "; give more calibration text, or allow plain rounding");
    result.fallbacks.push_back("rounded plainly");
    result.rounded_plainly = true;
    const RtnResult plain = rtn_quantize(weight, scheme, {options.search, false});
    result.weight = plain.weight;
    result.loss = result.rtn_loss = plain.relative_error;
    return result;
  }
  SweepPlan plan{hessian.inverse.upper, hessian.order, options.block_size};
  if (options.keep.defined() && scheme.holds_zero())
    plan.keep = options.keep.to(at::kByte).contiguous();

  at::Tensor target = weight.clone().contiguous();
  for (std::size_t j = 0; j < hessian.diagonal.size(); ++j) {
    if (hessian.diagonal[j] > 0) continue;
    result.dead_columns.push_back(static_cast<std::int64_t>(j));
  }
  const GridOptions grid_options{options.search, false};
  const at::Tensor prices = column_prices(hessian.diagonal);
  const Sweep sweep =
      options.static_groups
          ? sweep_on_grid(target, choose_grid(target, scheme, grid_options, prices), plan)
          : sweep_with_live_groups(target, scheme, grid_options, prices, plan);
  const auto as_weight = [&](const Sweep& swept) {
    return QuantizedWeight{scheme, swept.codes, swept.grid.scale, swept.grid.zero};
  };
  result.weight = as_weight(sweep);
  const at::Tensor plain_hessian =
      linalg::loss_hessian(hessian.values, weight.abs().max().item<double>());
  const auto losses_of = [&](const QuantizedWeight& rounded) {
    return linalg::row_losses(weight, values_of(rounded), plain_hessian);
  };
  at::Tensor loss = losses_of(result.weight);
  // What the sweep has added up is the loss of the target under the damped Hessian.
  const at::Tensor change = values_of(result.weight) - target;
  const double swept_loss = linalg::total(sweep.row_loss);
  const double damped_loss = linalg::total(loss) + cost_of_damping(change, hessian);
  result.identity_gap =
      swept_loss > 0 ? std::abs(damped_loss - swept_loss) / swept_loss : damped_loss;
  if (!std::isfinite(result.identity_gap)) result.identity_gap = 1;

  if ((options.refits > 0 || options.descents > 0) && plain_hessian.scalar_type() == at::kFloat) {
    refine(target, hessian, plain_hessian, options, plan, result.weight);
    loss = losses_of(result.weight);
  }

  const double size =
      linalg::total(linalg::row_losses(at::zeros_like(weight), weight, plain_hessian));
  const QuantizedWeight plain = rtn_quantize(weight, scheme).weight;
  const double plain_loss = linalg::total(losses_of(plain));
  if (!(linalg::total(loss) <= plain_loss)) {
    const Grid grid{scheme, plain.scale, plain.zero};
    result.plain_rows = take_better_rows(weight, plain_hessian, quantize_to_grid(target, grid),
                                         result.weight, loss);
  }
  if (size > 0) {
    result.loss = linalg::total(loss) / size;
    result.rtn_loss = plain_loss / size;
  }
  return result;
}

GptqResult gptq_quantize(const at::Tensor& weight, const at::Tensor& hessian,
                         const QuantScheme& scheme, const GptqOptions& options,
                         std::string_view where) {
  return gptq_quantize(weight,
                       linalg::prepare_hessian(hessian, options.act_order, options.damping, where),
                       scheme, options, where);
}

}  // namespace attar
