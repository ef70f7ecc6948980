#include "prune/structured_obs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/linalg/cholesky.h"
#include "compress/linalg/damped_inverse.h"

namespace attar {
namespace {

double sum_of(const at::Tensor& values) {
  const at::Tensor plain = values.contiguous();
  const auto* data = plain.const_data_ptr<double>();
  return std::accumulate(data, data + plain.numel(), 0.0);
}

// A^-1 as factor: A^-1 = U^T U, with a ladder of damping on the diagonal of A.
struct Inverse {
  at::Tensor upper;  // [n, n] double
  double damping = 0;
  double added = 0;  // on the diagonal
  std::vector<std::string> fallbacks;
};

Inverse invert_damped(const at::Tensor& matrix, double damping, std::string_view where) {
  const at::Tensor plain = matrix.contiguous();
  const double mean = linalg::mean_of(linalg::diagonal_of(plain));
  require<NumericRefusal>(std::isfinite(mean) && mean > 0, where,
                          "the statistics of the inputs are empty or not finite (mean square ",
                          mean, "); give more calibration text, or look at the layers before");
  Inverse result;
  for (int step = 0; step < 6; ++step) {
    at::Tensor damped = plain.clone();
    damped.diagonal().add_(damping * mean);
    const linalg::TriangularFactor factor = linalg::reverse_cholesky_inverse(damped);
    if (factor.ok()) {
      result.upper = factor.factor;
      result.damping = damping;
      result.added = damping * mean;
      return result;
    }
    result.fallbacks.push_back(message(where, "H is not positive definite with damping ", damping));
    damping = std::max(10 * damping, 1e-4);
  }
  throw NumericRefusal(
      message(where, result.fallbacks.back(), "; give more calibration text or raise damping"));
}

at::Tensor pick(const at::Tensor& matrix, const at::Tensor& rows, const at::Tensor& columns) {
  return at::index_select(at::index_select(matrix, 0, rows), 1, columns);
}

// What is left of a layer while units go.
struct Remaining {
  at::Tensor weight;   // [O, I] double; columns that went are 0
  at::Tensor inverse;  // [I, I] double; rows and columns that went are 0
  std::vector<char> gone;
};

// Takes the columns away together; returns what that costs.
double remove(Remaining& left, const at::Tensor& columns, std::string_view where) {
  const at::Tensor own = pick(left.inverse, columns, columns).contiguous();
  const linalg::TriangularFactor factor = linalg::reverse_cholesky_inverse(own);
  require<NumericRefusal>(factor.ok(), where,
                          "the inverse of H lost its definiteness; raise damping or lower batch");
  const at::Tensor part = at::mm(at::index_select(left.weight, 1, columns), factor.factor.t());
  const at::Tensor rows = at::mm(factor.factor, at::index_select(left.inverse, 0, columns));
  const double loss = sum_of(part.square());
  left.weight.sub_(at::mm(part, rows));
  left.inverse.sub_(at::mm(rows.t(), rows));
  left.weight.index_fill_(1, columns, 0.0);
  left.inverse.index_fill_(0, columns, 0.0);
  left.inverse.index_fill_(1, columns, 0.0);
  return loss;
}

// The `count` cheapest units of those that are left, ascending.
std::vector<std::int64_t> cheapest(const Remaining& left, std::int64_t count, std::int64_t width) {
  std::vector<std::int64_t> units;
  for (std::size_t unit = 0; unit < left.gone.size(); ++unit) {
    if (!left.gone[unit]) units.push_back(static_cast<std::int64_t>(unit));
  }
  const at::Tensor alive = columns_of(units, width);
  const at::Tensor losses =
      unit_losses(at::index_select(left.weight, 1, alive), pick(left.inverse, alive, alive), width);
  const auto* loss = losses.const_data_ptr<double>();
  std::vector<std::size_t> order(units.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return loss[a] < loss[b]; });
  std::vector<std::int64_t> chosen;
  for (std::int64_t k = 0; k < count; ++k) chosen.push_back(units[order[k]]);
  return chosen;
}

}  // namespace

std::vector<std::int64_t> RemovalOrder::kept(std::int64_t count, std::int64_t all) const {
  std::vector<char> gone(static_cast<std::size_t>(all), 0);
  for (std::int64_t k = 0; k < count; ++k) gone[units[k]] = 1;
  std::vector<std::int64_t> stay;
  for (std::int64_t unit = 0; unit < all; ++unit) {
    if (!gone[unit]) stay.push_back(unit);
  }
  return stay;
}

at::Tensor columns_of(const std::vector<std::int64_t>& units, std::int64_t width) {
  at::Tensor columns = at::empty({static_cast<std::int64_t>(units.size()) * width}, at::kLong);
  auto* out = columns.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t unit : units) {
    for (std::int64_t k = 0; k < width; ++k) *out++ = unit * width + k;
  }
  return columns;
}

at::Tensor unit_losses(const at::Tensor& weight, const at::Tensor& inverse, std::int64_t width) {
  if (width == 1) return weight.square().sum(0) / inverse.diagonal();
  const std::int64_t units = weight.size(1) / width;
  at::Tensor losses = at::empty({units}, at::kDouble);
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const std::int64_t first = unit * width;
    const at::Tensor own = inverse.narrow(0, first, width).narrow(1, first, width).contiguous();
    const linalg::TriangularFactor factor = linalg::reverse_cholesky_inverse(own.clone());
    losses.data_ptr<double>()[unit] =
        factor.ok() ? sum_of(at::mm(weight.narrow(1, first, width), factor.factor.t()).square())
                    : std::numeric_limits<double>::infinity();
  }
  return losses;
}

RemovalOrder removal_order(const at::Tensor& weight, const at::Tensor& hessian, std::int64_t count,
                           const ObsOptions& options, std::string_view where) {
  const std::int64_t columns = weight.size(-1);
  require<UsageError>(weight.dim() == 2 && hessian.dim() == 2 && hessian.size(0) == columns &&
                          hessian.size(1) == columns && hessian.scalar_type() == at::kDouble,
                      where,
                      "wants a weight [outputs, inputs] and a float64 Hessian [inputs, "
                      "inputs], got ",
                      weight.sizes(), " and ", hessian.sizes());
  require<UsageError>(options.width >= 1 && columns % options.width == 0 && options.batch >= 1,
                      where, "units of ", options.width, " columns must divide ", columns);
  const std::int64_t units = columns / options.width;
  require<UsageError>(count >= 0 && count < units, where, "cannot remove ", count, " of ", units,
                      " units; something must stay");
  const Inverse inverse = invert_damped(hessian, options.damping, where);
  RemovalOrder result;
  result.damping = inverse.damping;
  result.fallbacks = inverse.fallbacks;
  Remaining left{weight.to(at::kDouble).clone(), at::mm(inverse.upper.t(), inverse.upper),
                 std::vector<char>(static_cast<std::size_t>(units), 0)};
  at::Tensor damped = hessian.clone();
  damped.diagonal().add_(inverse.added);
  result.energy = sum_of(at::mm(left.weight, damped) * left.weight);
  require<NumericRefusal>(std::isfinite(result.energy), where,
                          "the weight or its statistics are not finite");
  result.losses.push_back(0);
  while (static_cast<std::int64_t>(result.units.size()) < count) {
    const std::int64_t step = std::min<std::int64_t>(
        options.batch, count - static_cast<std::int64_t>(result.units.size()));
    const std::vector<std::int64_t> chosen = cheapest(left, step, options.width);
    const double before = result.losses.back();
    std::vector<std::int64_t> ascending = chosen;
    std::sort(ascending.begin(), ascending.end());
    const double loss = remove(left, columns_of(ascending, options.width), where);
    for (std::int64_t k = 0; k < step; ++k) {
      left.gone[chosen[k]] = 1;
      result.units.push_back(chosen[k]);
      result.losses.push_back(before +
                              loss * static_cast<double>(k + 1) / static_cast<double>(step));
    }
  }
  return result;
}

Refit refit_columns(const at::Tensor& weight, const at::Tensor& dense, const at::Tensor& cross,
                    const at::Tensor& gram, const at::Tensor& kept, const at::Tensor& same_as,
                    double damping, std::string_view where) {
  require<UsageError>(cross.dim() == 2 && gram.dim() == 2 && cross.size(0) == weight.size(1) &&
                          cross.size(1) == gram.size(0) && gram.size(0) == gram.size(1) &&
                          same_as.size(0) == gram.size(0),
                      where, "wants X_dense X^T [", weight.size(1),
                      ", inputs] and X X^T [inputs, "
                      "inputs], got ",
                      cross.sizes(), " and ", gram.sizes());
  const Inverse inverse = invert_damped(pick(gram, kept, kept), damping, where);
  const at::Tensor own = at::index_select(same_as, 0, kept);  // columns of the dense inputs
  const at::Tensor full = weight.to(at::kDouble);
  const at::Tensor plain = at::index_select(full, 1, own);
  at::Tensor target = at::mm(full, at::index_select(cross, 1, kept));  // W X_dense X_K^T
  const at::Tensor damped_target = target + inverse.added * plain;
  const at::Tensor fitted =
      at::mm(at::mm(damped_target, inverse.upper.t()), inverse.upper).to(at::kFloat);
  Refit result{fitted, 0, 0, inverse.damping, inverse.fallbacks};
  if (!dense.defined()) return result;
  const double energy = sum_of(at::mm(full, dense) * full);
  const at::Tensor reduced = pick(gram, kept, kept);
  const auto loss = [&](const at::Tensor& values) {
    const double change =
        energy - 2 * sum_of(values * target) + sum_of(at::mm(values, reduced) * values);
    return energy > 0 ? std::max(0.0, change / energy) : 0.0;
  };
  result.loss = loss(fitted.to(at::kDouble));
  result.unrefit = loss(plain);
  return result;
}

std::vector<std::int64_t> share_out(const std::vector<std::vector<double>>& errors,
                                    std::int64_t total) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  const std::size_t layers = errors.size(), sums = static_cast<std::size_t>(total) + 1;
  // best[l][s]: the least error of layers l.. that remove s together.
  std::vector<std::vector<double>> best(layers + 1, std::vector<double>(sums, kNever));
  best[layers][0] = 0;
  for (std::size_t l = layers; l-- > 0;) {
    for (std::size_t s = 0; s < sums; ++s) {
      for (std::size_t k = 0; k < errors[l].size() && k <= s; ++k) {
        best[l][s] = std::min(best[l][s], errors[l][k] + best[l + 1][s - k]);
      }
    }
  }
  require<DoesNotFit>(best[0][sums - 1] < kNever, "share_out",
                      "the layers together cannot give up ", total, " levels; ask for less");
  std::vector<std::int64_t> levels;
  std::size_t s = sums - 1;
  for (std::size_t l = 0; l < layers; ++l) {
    for (std::size_t k = 0; k < errors[l].size() && k <= s; ++k) {
      if (errors[l][k] + best[l + 1][s - k] != best[l][s]) continue;
      levels.push_back(static_cast<std::int64_t>(k));
      s -= k;
      break;
    }
  }
  return levels;
}

}  // namespace attar
