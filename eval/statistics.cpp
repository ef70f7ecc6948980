#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "eval/metrics.h"

namespace attar::eval {
namespace {

constexpr double kNormal95 = 1.959963984540054;

void require_pairs(std::span<const double> original, std::span<const double> changed) {
  require<UsageError>(!original.empty() && original.size() == changed.size(), "statistics",
                      "both sides must answer the same documents, got ", original.size(), " and ",
                      changed.size());
}

// 2 P(X <= smaller) for X ~ Binomial(n, 1/2), at most 1.
double two_sided_binomial(std::int64_t smaller, std::int64_t n) {
  const auto log_choose = [n](double k) {
    const auto m = static_cast<double>(n);
    return std::lgamma(m + 1) - std::lgamma(k + 1) - std::lgamma(m - k + 1);
  };
  double tail = 0;
  for (std::int64_t k = 0; k <= smaller; ++k) {
    tail += std::exp(log_choose(static_cast<double>(k)) - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

}  // namespace

Estimate paired_difference(std::span<const double> original, std::span<const double> changed) {
  require_pairs(original, changed);
  std::vector<double> differences(original.size());
  std::transform(changed.begin(), changed.end(), original.begin(), differences.begin(),
                 std::minus<>());
  const double value = mean(differences);
  const double half = kNormal95 * mean_error(differences).value_or(0);
  return {value, value - half, value + half};
}

Flips count_flips(std::span<const double> original, std::span<const double> changed) {
  require_pairs(original, changed);
  Flips flips;
  for (std::size_t i = 0; i < original.size(); ++i) {
    const bool was_right = original[i] > 0.5;
    const bool is_right = changed[i] > 0.5;
    flips.lost += was_right && !is_right;
    flips.gained += !was_right && is_right;
  }
  const std::int64_t all = flips.lost + flips.gained;
  if (all > 0) flips.p_value = two_sided_binomial(std::min(flips.lost, flips.gained), all);
  return flips;
}

double quantile(std::span<const double> values, double share) {
  require<UsageError>(!values.empty() && share >= 0 && share <= 1, "statistics",
                      "a quantile needs values and a share in [0, 1], got ", values.size(),
                      " values and share ", share);
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - static_cast<double>(below));
}

void draw_blocks(std::int64_t draw, const BootstrapOptions& options,
                 std::span<std::int64_t> blocks) {
  const CounterRandom random(options.seed, "block bootstrap", static_cast<std::uint64_t>(draw));
  for (std::size_t k = 0; k < blocks.size(); ++k) {
    blocks[k] = static_cast<std::int64_t>(random.below(k, blocks.size()));
  }
}

Estimate block_bootstrap(std::int64_t blocks,
                         const std::function<double(std::span<const std::int64_t>)>& statistic,
                         const BootstrapOptions& options) {
  require<UsageError>(blocks > 0 && options.draws > 0, "statistics",
                      "a bootstrap needs blocks and draws, got ", blocks, " and ", options.draws);
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(blocks));
  std::iota(chosen.begin(), chosen.end(), 0);
  const double value = statistic(chosen);
  if (blocks == 1) return {value, value, value};
  std::vector<double> drawn;
  for (std::int64_t draw = 0; draw < options.draws; ++draw) {
    draw_blocks(draw, options, chosen);
    drawn.push_back(statistic(chosen));
  }
  return {value, quantile(drawn, 0.025), quantile(drawn, 0.975)};
}

Estimate bootstrap_ratio(std::span<const double> sums, std::span<const double> weights,
                         const std::function<double(double)>& transform,
                         const BootstrapOptions& options) {
  require<UsageError>(sums.size() == weights.size(), "statistics",
                      "each sum needs its weight, got ", sums.size(), " and ", weights.size());
  const auto ratio = [&](std::span<const std::int64_t> blocks) {
    double sum = 0;
    double weight = 0;
    for (const std::int64_t block : blocks) {
      sum += sums[block];
      weight += weights[block];
    }
    return transform(sum / weight);
  };
  return block_bootstrap(static_cast<std::int64_t>(sums.size()), ratio, options);
}

}  // namespace attar::eval
