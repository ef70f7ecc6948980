#include "prune/structured_obs.h"

#include <ATen/Parallel.h>
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
  at::Tensor weight;       // [O, I] double, contiguous; columns that went are 0
  at::Tensor inverse;      // [I, I] double, contiguous; rows and columns that went are 0
  std::vector<char> gone;  // by unit

  std::int64_t columns() const { return weight.size(1); }
};

// Takes one unit of several columns away; returns what that costs.
double remove_unit(Remaining& left, std::int64_t unit, std::int64_t width, std::string_view where) {
  const at::Tensor columns = columns_of({unit}, width);
  const at::Tensor own = pick(left.inverse, columns, columns).contiguous();
  const linalg::TriangularFactor factor = linalg::reverse_cholesky_inverse(own);
  require<NumericRefusal>(factor.ok(), where,
                          "the inverse of H lost its definiteness; raise damping");
  const at::Tensor part = at::mm(at::index_select(left.weight, 1, columns), factor.factor.t());
  const at::Tensor rows = at::mm(factor.factor, at::index_select(left.inverse, 0, columns));
  const double loss = sum_of(part.square());
  left.weight.sub_(at::mm(part, rows));
  left.inverse.sub_(at::mm(rows.t(), rows));
  left.weight.index_fill_(1, columns, 0.0);
  left.inverse.index_fill_(0, columns, 0.0);
  left.inverse.index_fill_(1, columns, 0.0);
  left.gone[unit] = 1;
  return loss;
}

std::int64_t cheapest_unit(const Remaining& left, std::int64_t width) {
  const at::Tensor losses = unit_losses(left.weight, left.inverse, width);
  const auto* loss = losses.const_data_ptr<double>();
  std::int64_t best = -1;
  for (std::size_t unit = 0; unit < left.gone.size(); ++unit) {
    if (left.gone[unit]) continue;
    if (best < 0 || loss[unit] < loss[best]) best = static_cast<std::int64_t>(unit);
  }
  return best;
}

// Single columns, one by one, each seen by the scores of the next. The inverse is updated for a
// whole batch at once: until then a column of it is made current when it is needed.
class ColumnRemoval {
 public:
  ColumnRemoval(Remaining& left, std::int64_t batch, std::string_view where)
      : left_(left),
        where_(where),
        steps_(at::zeros({batch, left.columns()}, at::kDouble)),
        diagonal_(left.inverse.diagonal().contiguous()),
        sizes_(left.weight.square().sum(0)) {}

  // Removes the cheapest column; gives its index and adds what it costs.
  std::int64_t step(double& loss) {
    const std::int64_t n = left_.columns(), chosen = cheapest();
    auto* steps = steps_.data_ptr<double>();
    double* row = steps + taken_ * n;
    const double* stale = left_.inverse.const_data_ptr<double>() + chosen * n;
    std::copy_n(stale, n, row);
    for (std::int64_t k = 0; k < taken_; ++k) {
      const double factor = steps[k * n + chosen];
      for (std::int64_t j = 0; j < n; ++j) row[j] -= factor * steps[k * n + j];
    }
    const double pivot = row[chosen];
    require<NumericRefusal>(pivot > 0, where_,
                            "the inverse of H lost its definiteness; raise damping");
    const double scale = 1 / std::sqrt(pivot);
    for (std::int64_t j = 0; j < n; ++j) row[j] *= scale;
    loss += sizes_.const_data_ptr<double>()[chosen] / pivot;
    take_from_weight(chosen, row, scale);
    auto* diagonal = diagonal_.data_ptr<double>();
    for (std::int64_t j = 0; j < n; ++j) diagonal[j] -= row[j] * row[j];
    left_.gone[chosen] = 1;
    ++taken_;
    return chosen;
  }

  void finish_batch() {
    const at::Tensor steps = steps_.narrow(0, 0, taken_);
    left_.inverse.sub_(at::mm(steps.t(), steps));
    taken_ = 0;
  }

 private:
  std::int64_t cheapest() const {
    const auto* size = sizes_.const_data_ptr<double>();
    const auto* diagonal = diagonal_.const_data_ptr<double>();
    std::int64_t best = -1;
    double least = 0;
    for (std::size_t j = 0; j < left_.gone.size(); ++j) {
      if (left_.gone[j]) continue;
      const double loss = size[j] / diagonal[j];
      if (best >= 0 && !(loss < least)) continue;
      best = static_cast<std::int64_t>(j);
      least = loss;
    }
    return best;
  }

  // W -= w_chosen * row * scale, and the sizes of its columns.
  void take_from_weight(std::int64_t chosen, const double* row, double scale) {
    const std::int64_t n = left_.columns(), outputs = left_.weight.size(0);
    auto* weight = left_.weight.data_ptr<double>();
    auto* sizes = sizes_.data_ptr<double>();
    std::vector<double> column(static_cast<std::size_t>(outputs));
    for (std::int64_t r = 0; r < outputs; ++r) column[r] = weight[r * n + chosen] * scale;
    at::parallel_for(0, n, 256, [&](std::int64_t begin, std::int64_t end) {
      std::fill(sizes + begin, sizes + end, 0.0);
      for (std::int64_t r = 0; r < outputs; ++r) {
        double* values = weight + r * n;
        for (std::int64_t j = begin; j < end; ++j) {
          values[j] -= column[r] * row[j];
          sizes[j] += values[j] * values[j];
        }
      }
    });
  }

  Remaining& left_;
  std::string_view where_;
  at::Tensor steps_;     // [batch, I]: rows whose outer products the inverse still has to lose
  at::Tensor diagonal_;  // [I]: of the inverse, current
  at::Tensor sizes_;     // [I]: sum of squares of the weight's columns, current
  std::int64_t taken_ = 0;
};

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
  const auto left_to_go = [&] { return count - static_cast<std::int64_t>(result.units.size()); };
  if (options.width > 1) {
    while (left_to_go() > 0) {
      const std::int64_t unit = cheapest_unit(left, options.width);
      const double loss = remove_unit(left, unit, options.width, where);
      result.units.push_back(unit);
      result.losses.push_back(result.losses.back() + loss);
    }
    return result;
  }
  ColumnRemoval removal(left, options.batch, where);
  while (left_to_go() > 0) {
    for (std::int64_t k = std::min(options.batch, left_to_go()); k > 0; --k) {
      double loss = result.losses.back();
      result.units.push_back(removal.step(loss));
      result.losses.push_back(loss);
    }
    removal.finish_batch();
  }
  return result;
}

Ridge ridge(const at::Tensor& target, const at::Tensor& gram, double damping,
            std::string_view where) {
  Inverse inverse = invert_damped(gram, damping, where);
  return {at::mm(at::mm(target, inverse.upper.t()), inverse.upper), inverse.damping,
          std::move(inverse.fallbacks)};
}

Refit refit_columns(const at::Tensor& weight, const at::Tensor& dense, const at::Tensor& cross,
                    const at::Tensor& gram, const at::Tensor& kept, const at::Tensor& same_as,
                    double damping, std::string_view where, const at::Tensor& more) {
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
  if (more.defined()) target = target + at::index_select(more, 1, kept);
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
