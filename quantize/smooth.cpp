#include "quantize/smooth.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scatter_reduce.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "compress/core/prepared_weight.h"

namespace attar {
namespace {

void check_problem(const SmoothProblem& problem) {
  require<UsageError>(!problem.weights.empty(), "smooth", "no weight to scale");
  const std::int64_t columns = problem.weights.front().size(-1);
  for (const at::Tensor& weight : problem.weights) {
    require<UsageError>(weight.dim() == 2 && weight.size(1) == columns && weight.numel() > 0 &&
                            weight.scalar_type() == at::kFloat,
                        "smooth", "weights of one input must be float32 [outputs, ", columns,
                        "], got ", weight.sizes());
    check_finite(weight, "smooth");
  }
  const auto fits = [&](const at::Tensor& part, std::int64_t dims, at::ScalarType type) {
    return part.defined() && part.dim() == dims && part.size(-1) == columns &&
           part.scalar_type() == type;
  };
  require<UsageError>(fits(problem.rows, 2, at::kFloat), "smooth", "rows must be float32 [T, ",
                      columns, "]");
  require<UsageError>(fits(problem.max_absolute, 1, at::kFloat), "smooth",
                      "max_absolute must be float32 [", columns, "]");
  require<UsageError>(!problem.tied.defined() || fits(problem.tied, 1, at::kLong), "smooth",
                      "tied must be int64 [", columns, "]");
}

// x W^T, [T, O]; a row's bits are its own (prepared_weight.h).
at::Tensor product(const at::Tensor& rows, const Weight& weight) {
  return PreparedWeight(weight).multiply_into(
      at::empty({rows.size(0), shape_of(weight).out}, at::kFloat), rows);
}

// Sum of squares, row after row, so that no number of threads changes it.
double energy(const at::Tensor& values) {
  const at::Tensor squares = values.square().sum(1).to(at::kDouble);
  const auto* data = squares.const_data_ptr<double>();
  double sum = 0;
  for (std::int64_t row = 0; row < squares.size(0); ++row) sum += data[row];
  return sum;
}

class Judge {
 public:
  Judge(const SmoothProblem& problem, QuantScheme scheme)
      : problem_(problem), scheme_(std::move(scheme)) {
    require<UsageError>(scheme_.token_grid().has_value(), "smooth",
                        "the scheme must round activations (activations: 8)");
    grid_ = *scheme_.token_grid();
    scheme_.activation_bits = 0;  // rows are rounded here, once for all weights
    for (const at::Tensor& weight : problem.weights) {
      targets_.push_back(product(problem.rows, DenseWeight{weight}));
      sizes_.push_back(energy(targets_.back()));
    }
  }

  double loss(const at::Tensor& scale) const {
    const at::Tensor rows = round_tokens(problem_.rows / scale, grid_);
    double total = 0;
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (!(sizes_[i] > 0)) continue;
      const at::Tensor scaled = problem_.weights[i] * scale;
      const QuantizedWeight rounded = quantize_to_grid(scaled, choose_grid(scaled, scheme_));
      total += energy(product(rows, rounded) - targets_[i]) / sizes_[i];
    }
    return total;
  }

 private:
  const SmoothProblem& problem_;
  QuantScheme scheme_;
  kernels::TokenGrid grid_ = kernels::TokenGrid::integers;
  std::vector<at::Tensor> targets_;  // [T, O_i]
  std::vector<double> sizes_;
};

// The largest over tied columns at each of them, never below 1e-4 of the largest of all; its
// logarithm, in double.
at::Tensor logarithms(at::Tensor values, const at::Tensor& tied) {
  if (tied.defined()) {
    values =
        at::scatter_reduce(at::zeros_like(values), 0, tied, values, "amax").index_select(0, tied);
  }
  const double largest = values.max().item<double>();
  if (!(largest > 0)) return at::zeros_like(values, at::kDouble);
  return values.to(at::kDouble).clamp_min(1e-4 * largest).log();
}

// Of every column, [I] float32; added row after row.
at::Tensor mean_absolute(const at::Tensor& rows) {
  const at::Tensor plain = rows.contiguous();
  const std::int64_t count = plain.size(0), columns = plain.size(1);
  const float* x = plain.const_data_ptr<float>();
  std::vector<double> sum(static_cast<std::size_t>(columns));
  for (std::int64_t row = 0; row < count; ++row) {
    for (std::int64_t j = 0; j < columns; ++j) {
      sum[static_cast<std::size_t>(j)] += std::abs(static_cast<double>(x[row * columns + j]));
    }
  }
  at::Tensor mean = at::empty({columns}, at::kFloat);
  for (std::int64_t j = 0; j < columns; ++j) {
    mean.mutable_data_ptr<float>()[j] =
        static_cast<float>(sum[static_cast<std::size_t>(j)] / static_cast<double>(count));
  }
  return mean;
}

// With max * min = 1.
at::Tensor scale_of(const at::Tensor& exponents) {
  const at::Tensor middle = (exponents.max() + exponents.min()) / 2;
  return (exponents - middle).exp().to(at::kFloat);
}

}  // namespace

SmoothScales search_smooth_scales(const SmoothProblem& problem, const QuantScheme& scheme,
                                  const SmoothOptions& options) {
  check_problem(problem);
  require<UsageError>(options.steps >= 1 && options.steps <= 1000, "smooth",
                      "steps must be in [1, 1000], got ", options.steps);
  const std::int64_t columns = problem.max_absolute.size(0);
  SmoothScales best{at::ones({columns}, at::kFloat), 0, 0, 0};
  if (problem.rows.size(0) == 0) return best;
  const Judge judge(problem, scheme);
  best.loss = best.plain_loss = judge.loss(best.scale);

  at::Tensor largest_weight = problem.weights.front().abs().amax(0);
  for (const at::Tensor& weight : problem.weights) {
    largest_weight = at::maximum(largest_weight, weight.abs().amax(0));
  }
  const at::Tensor weight = logarithms(largest_weight, problem.tied);
  const auto attempt = [&](const at::Tensor& exponents, double alpha) {
    const at::Tensor scale = scale_of(exponents);
    const double loss = judge.loss(scale);
    if (!(loss < best.loss)) return;
    best.scale = scale;
    best.alpha = alpha;
    best.loss = loss;
  };
  for (const at::Tensor& magnitude : {problem.max_absolute, mean_absolute(problem.rows)}) {
    const at::Tensor input = logarithms(magnitude, problem.tied);
    for (int i = 1; i <= options.steps; ++i) {
      const double alpha = static_cast<double>(i) / options.steps;
      attempt(alpha * input, alpha);
      if (i < options.steps) attempt(alpha * input - (1 - alpha) * weight, alpha);
    }
  }
  return best;
}

}  // namespace attar
