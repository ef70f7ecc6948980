#include "quantize/awq.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "compress/core/errors.h"
#include "compress/linalg/cholesky.h"
#include "compress/linalg/quadratic_loss.h"
#include "quantize/gptq_refine.h"
#include "quantize/gptq_sweep.h"

namespace attar {
namespace {

void check_problem(const AwqProblem& problem, const QuantScheme& scheme) {
  require<UsageError>(!problem.weights.empty(), "awq", "no weight to scale");
  const std::int64_t columns = problem.weights.front().size(-1);
  check_scheme(scheme, columns);
  const auto wide = [&](const at::Tensor& part, at::ScalarType type) {
    return part.defined() && part.dim() == 1 && part.size(0) == columns &&
           part.scalar_type() == type;
  };
  for (const at::Tensor& weight : problem.weights) {
    require<UsageError>(weight.dim() == 2 && weight.size(1) == columns && weight.numel() > 0 &&
                            weight.scalar_type() == at::kFloat,
                        "awq", "weights of one input must be float32 [outputs, ", columns,
                        "], got ", weight.sizes(), " of ", c10::toString(weight.scalar_type()));
    check_finite(weight, "awq");
  }
  require<UsageError>(problem.gram.dim() == 2 && problem.gram.size(0) == columns &&
                          problem.gram.size(1) == columns &&
                          problem.gram.scalar_type() == at::kDouble,
                      "awq", "the Gram matrix must be float64 [", columns, ", ", columns, "], got ",
                      problem.gram.sizes());
  require<UsageError>(wide(problem.mean_absolute, at::kDouble), "awq",
                      "mean_absolute must be float64 [", columns, "]");
  require<UsageError>(!problem.tied.defined() || wide(problem.tied, at::kLong), "awq",
                      "tied must be int64 [", columns, "]");
  require<UsageError>(
      problem.row_importance.empty() || problem.row_importance.size() == problem.weights.size(),
      "awq", "row_importance must be empty or one tensor a weight, got ",
      problem.row_importance.size(), " for ", problem.weights.size(), " weights");
  require<NumericRefusal>(std::isfinite(problem.gram.sum().item<double>()) &&
                              std::isfinite(problem.mean_absolute.sum().item<double>()),
                          "awq", "the input's statistics hold a NaN or an infinity",
                          "; an activation overflowed: look at the layers before");
}

// Rows that stand for a weight in the search: all of them, or `limit` at even distances.
at::Tensor sampled_rows(const at::Tensor& values, std::int64_t limit) {
  const std::int64_t rows = values.size(0);
  if (limit <= 0 || rows <= limit) return values.contiguous();
  at::Tensor chosen = at::empty({limit}, at::kLong);
  for (std::int64_t k = 0; k < limit; ++k) {
    chosen.data_ptr<std::int64_t>()[k] = (2 * k + 1) * rows / (2 * limit);
  }
  return at::index_select(values, 0, chosen);
}

struct Sample {
  at::Tensor weight;      // [rows, I] float32
  at::Tensor importance;  // [rows] double; undefined: all alike
  double share = 1;       // rows of the whole for one row here
};

std::vector<Sample> sample(const AwqProblem& problem, std::int64_t limit) {
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < problem.weights.size(); ++i) {
    Sample part{sampled_rows(problem.weights[i], limit), {}, 1};
    part.share =
        static_cast<double>(problem.weights[i].size(0)) / static_cast<double>(part.weight.size(0));
    if (!problem.row_importance.empty()) {
      part.importance = sampled_rows(problem.row_importance[i], limit);
    }
    samples.push_back(std::move(part));
  }
  return samples;
}

double weighted_sum(const Sample& part, const at::Tensor& row_loss) {
  const double* loss = row_loss.const_data_ptr<double>();
  double total = 0;
  for (std::int64_t r = 0; r < row_loss.size(0); ++r) {
    total +=
        loss[r] * (part.importance.defined() ? part.importance.const_data_ptr<double>()[r] : 1.0);
  }
  return total * part.share;
}

double largest_weight(const AwqProblem& problem) {
  double largest = 0;
  for (const at::Tensor& weight : problem.weights) {
    largest = std::max(largest, weight.abs().max().item<double>());
  }
  return largest;
}

// Sum of tr(D H D^T) over all weights when the columns are scaled before rounding.
class Judge {
 public:
  Judge(const AwqProblem& problem, const QuantScheme& scheme, const AwqOptions& options)
      : scheme_(scheme),
        options_(options.grid),
        hessian_(linalg::loss_hessian(problem.gram.contiguous(), largest_weight(problem))),
        diagonal_(problem.gram.diagonal().contiguous()) {
    if (options.for_gptq && hessian_.scalar_type() == at::kFloat)
      factor(problem.gram, options.damping);
  }

  // A sweep of GPTQ stands behind the judgement (asked for, and H could be factored).
  bool sweeps() const { return plan_.upper.defined(); }

  // 1 / sqrt(diag H^-1); only when sweeps().
  std::vector<double> unexplained() const {
    const std::int64_t n = diagonal_.size(0);
    const float* upper = plan_.upper.const_data_ptr<float>();
    std::vector<double> sum(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t k = i; k < n; ++k) {
        const auto u = static_cast<double>(upper[i * n + k]);
        sum[plan_.order[k]] += u * u;
      }
    }
    for (double& value : sum) value = 1 / std::sqrt(value);
    return sum;
  }

  double size(const std::vector<Sample>& samples) const {
    double total = 0;
    for (const Sample& part : samples) {
      total += weighted_sum(part, linalg::row_losses(part.weight * 0, part.weight, hessian_));
    }
    return total;
  }

  double loss(const std::vector<Sample>& samples, const at::Tensor& scale) const {
    const at::Tensor prices = diagonal_ / scale.to(at::kDouble).square();
    SweepPlan plan = plan_;
    if (sweeps()) plan.upper = plan_.upper * scale.index_select(0, order_);
    double total = 0;
    for (const Sample& part : samples) {
      const at::Tensor scaled = part.weight * scale;
      if (!at::isfinite(scaled).all().item<bool>()) return std::numeric_limits<double>::infinity();
      const Grid grid = choose_grid(scaled, scheme_, options_, prices);
      if (sweeps()) {
        total += weighted_sum(part, sweep_on_grid(scaled, grid, plan).row_loss);
        continue;
      }
      const at::Tensor rounded = dequantize(quantize_to_grid(scaled, grid).codes, grid) / scale;
      total += weighted_sum(part, linalg::row_losses(part.weight, rounded, hessian_));
    }
    return total;
  }

 private:
  // U of the unscaled H. With columns scaled by s, H becomes S^-1 H S^-1 and U becomes U S.
  void factor(const at::Tensor& gram, double damping) {
    const std::int64_t n = gram.size(0);
    order_ = std::get<1>(diagonal_.sort(/*stable=*/true, 0, /*descending=*/true));
    at::Tensor damped = gram.index_select(0, order_).index_select(1, order_).contiguous();
    damped.diagonal().add_(damping * diagonal_.mean());
    const linalg::TriangularFactor inverse = linalg::reverse_cholesky_inverse(std::move(damped));
    if (!inverse.ok()) return;
    plan_.upper = inverse.factor.to(at::kFloat);
    const std::int64_t* order = order_.const_data_ptr<std::int64_t>();
    plan_.order.assign(order, order + n);
  }

  QuantScheme scheme_;
  GridOptions options_;
  at::Tensor hessian_;   // [I, I] float32, or double where that would not hold the losses
  at::Tensor diagonal_;  // [I] double
  at::Tensor order_;     // [I] int64
  SweepPlan plan_;
};

// Mean over tied columns, at each of them.
std::vector<double> tie(std::vector<double> values, const at::Tensor& tied) {
  if (!tied.defined()) return values;
  const at::Tensor plain = tied.contiguous();
  const std::int64_t* id = plain.const_data_ptr<std::int64_t>();
  const std::int64_t ids = *std::max_element(id, id + plain.size(0)) + 1;
  require<UsageError>(*std::min_element(id, id + plain.size(0)) >= 0 && ids <= plain.size(0), "awq",
                      "tied ids must be in [0, columns)");
  std::vector<double> sum(static_cast<std::size_t>(ids)), count(static_cast<std::size_t>(ids));
  for (std::size_t j = 0; j < values.size(); ++j) {
    sum[id[j]] += values[j];
    count[id[j]] += 1;
  }
  for (std::size_t j = 0; j < values.size(); ++j) values[j] = sum[id[j]] / count[id[j]];
  return values;
}

// Logarithms of a positive statistic, none below 1e-4 of the mean.
std::vector<double> logarithms(std::vector<double> values) {
  double mean = 0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  for (double& value : values) {
    value = mean > 0 ? std::log(std::max(value, 1e-4 * mean)) : 0.0;
  }
  return values;
}

// Mean over all rows of |w| relative to the largest |w| of its group (AutoAWQ's weight scale).
std::vector<double> weight_magnitudes(const AwqProblem& problem, const QuantScheme& scheme) {
  const std::int64_t columns = problem.weights.front().size(1);
  const std::int64_t group = columns / scheme.groups(columns);
  std::vector<double> sum(static_cast<std::size_t>(columns));
  for (const at::Tensor& weight : problem.weights) {
    const at::Tensor plain = weight.contiguous();
    for (std::int64_t r = 0; r < plain.size(0); ++r) {
      const float* row = plain.const_data_ptr<float>() + r * columns;
      for (std::int64_t first = 0; first < columns; first += group) {
        float largest = 0;
        for (std::int64_t j = first; j < first + group; ++j) {
          largest = std::max(largest, std::abs(row[j]));
        }
        if (largest == 0) continue;
        for (std::int64_t j = first; j < first + group; ++j) {
          sum[j] += static_cast<double>(std::abs(row[j]) / largest);
        }
      }
    }
  }
  return sum;
}

// exp(alpha log x - beta log w), with max * min = 1.
at::Tensor scale_of(const std::vector<double>& input, const std::vector<double>& weight,
                    double alpha, double beta) {
  std::vector<double> exponent(input.size());
  for (std::size_t j = 0; j < input.size(); ++j) {
    exponent[j] = alpha * input[j] - beta * weight[j];
  }
  const auto [low, high] = std::minmax_element(exponent.begin(), exponent.end());
  const double middle = (*low + *high) / 2;
  at::Tensor scale = at::empty({static_cast<std::int64_t>(input.size())}, at::kFloat);
  for (std::size_t j = 0; j < input.size(); ++j) {
    scale.data_ptr<float>()[j] = static_cast<float>(std::exp(exponent[j] - middle));
  }
  return scale;
}

std::vector<double> as_vector(const at::Tensor& values) {
  const at::Tensor plain = values.contiguous();
  const double* data = plain.const_data_ptr<double>();
  return {data, data + plain.numel()};
}

}  // namespace

AwqScales search_awq_scales(const AwqProblem& problem, const QuantScheme& scheme,
                            const AwqOptions& options) {
  check_problem(problem, scheme);
  require<UsageError>(options.steps >= 1 && options.steps <= 1000, "awq",
                      "steps must be in [1, 1000], got ", options.steps);
  const Judge judge(problem, scheme, options);
  const std::vector<double> weight =
      logarithms(tie(weight_magnitudes(problem, scheme), problem.tied));
  std::vector<std::vector<double>> inputs = {
      logarithms(tie(as_vector(problem.mean_absolute), problem.tied))};
  if (judge.sweeps()) inputs.push_back(logarithms(tie(judge.unexplained(), problem.tied)));

  const std::vector<Sample> samples = sample(problem, options.sample_rows);
  const at::Tensor ones = at::ones({problem.gram.size(0)}, at::kFloat);
  AwqScales best{ones, 0, 0, 0, 0};
  double best_loss = judge.loss(samples, ones);
  for (const std::vector<double>& input : inputs) {
    for (int form = 0; form < (options.weight_scale ? 2 : 1); ++form) {
      for (int i = 0; i <= options.steps; ++i) {
        const double alpha = static_cast<double>(i) / options.steps;
        const double beta = form == 0 ? 0.0 : 1 - alpha;
        if (alpha == 0 && beta == 0) continue;
        const at::Tensor scale = scale_of(input, weight, alpha, beta);
        const double loss = judge.loss(samples, scale);
        if (!(loss < best_loss)) continue;
        best_loss = loss;
        best = {scale, alpha, beta, 0, 0};
      }
    }
  }

  const std::vector<Sample> all = sample(problem, 0);
  const double size = judge.size(all);
  if (!(size > 0)) return {ones, 0, 0, 0, 0};
  best.plain_loss = judge.loss(all, ones) / size;
  best.loss = judge.loss(all, best.scale) / size;
  if (!(best.loss <= best.plain_loss)) best = {ones, 0, 0, best.plain_loss, best.plain_loss};
  return best;
}

at::Tensor tied_over_query_heads(std::int64_t query_heads, std::int64_t kv_heads,
                                 std::int64_t head_width) {
  require<UsageError>(
      query_heads > 0 && kv_heads > 0 && head_width > 0 && query_heads % kv_heads == 0, "awq",
      "kv_heads must divide query_heads, got ", kv_heads, " and ", query_heads);
  at::Tensor ids = at::empty({query_heads * head_width}, at::kLong);
  const std::int64_t sharing = query_heads / kv_heads;
  for (std::int64_t j = 0; j < ids.size(0); ++j) {
    const std::int64_t head = j / head_width;
    ids.data_ptr<std::int64_t>()[j] = head / sharing * head_width + j % head_width;
  }
  return ids;
}

}  // namespace attar
