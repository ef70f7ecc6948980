#include "eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/errors.h"
#include "eval/python_random.h"

namespace attar::eval {

double mean(std::span<const double> values) {
  require<UsageError>(!values.empty(), "metrics", "there is no mean of nothing");
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double sample_deviation(std::span<const double> values) {
  require<UsageError>(values.size() >= 2, "metrics", "a deviation needs two values");
  const double center = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - center) * (value - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

std::optional<double> mean_error(std::span<const double> values) {
  if (values.size() < 2) return std::nullopt;
  return sample_deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

double perplexity(std::span<const double> log_likelihoods) {
  return std::exp(-mean(log_likelihoods));
}

std::optional<double> bootstrap_error(
    std::span<const double> values, const std::function<double(std::span<const double>)>& statistic,
    std::int64_t draws) {
  const std::int64_t chunk = std::min<std::int64_t>(1000, draws);
  require<UsageError>(draws >= 2 && draws % chunk == 0, "metrics",
                      "draws must be below 1000 or a multiple of it, at least 2, got ", draws);
  if (values.size() < 2) return std::nullopt;
  const auto size = static_cast<std::int64_t>(values.size());
  std::vector<double> resampled(values.size());
  std::vector<double> statistics;
  for (std::int64_t seed = 0; seed < draws / chunk; ++seed) {
    PythonRandom random(static_cast<std::uint64_t>(seed));
    for (std::int64_t draw = 0; draw < chunk; ++draw) {
      for (double& value : resampled) value = values[random.choice(size)];
      statistics.push_back(statistic(resampled));
    }
  }
  return sample_deviation(statistics);
}

double weighted_mean(std::span<const double> values, std::span<const std::int64_t> sizes) {
  require<UsageError>(!values.empty() && values.size() == sizes.size(), "metrics",
                      "each value needs its size, got ", values.size(), " and ", sizes.size());
  double sum = 0;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += values[i] * static_cast<double>(sizes[i]);
    total += sizes[i];
  }
  return sum / static_cast<double>(total);
}

double pooled_error(std::span<const double> errors, std::span<const std::int64_t> sizes) {
  require<UsageError>(!errors.empty() && errors.size() == sizes.size(), "metrics",
                      "each error needs its size, got ", errors.size(), " and ", sizes.size());
  double sum = 0;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    const auto n = static_cast<double>(sizes[i]);
    sum += (n - 1) * n * errors[i] * errors[i];
    total += sizes[i];
  }
  const auto groups = static_cast<std::int64_t>(sizes.size());
  require<UsageError>(total > groups, "metrics",
                      "a pooled error needs more than one value a group");
  return std::sqrt(sum / static_cast<double>(total - groups) / static_cast<double>(total));
}

}  // namespace attar::eval
