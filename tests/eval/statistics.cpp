#include "eval/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "eval/divergence.h"
#include "eval/metrics.h"

namespace attar::eval {
namespace {

// Made with Python: statistics.stdev, and the harness's bootstrap over random.Random(i).choices.
TEST(Metrics, EqualTheHarnessOnFiveLogLikelihoods) {
  const std::vector<double> values = {-5.028613090515137, -0.25, -1.5, -7.125, -2.0};
  EXPECT_EQ(mean(values), -3.1807226181030273);
  EXPECT_DOUBLE_EQ(sample_deviation(values), 2.818691750951996);
  EXPECT_DOUBLE_EQ(mean_error(values).value(), 1.2605572725493142);
  EXPECT_DOUBLE_EQ(perplexity(values), 24.06413645134269);
  EXPECT_DOUBLE_EQ(bootstrap_error(values, perplexity, 3000).value(), 74.36134346448503);
}

TEST(Metrics, HaveNoErrorForOneValue) {
  const std::vector<double> one = {1};
  EXPECT_FALSE(mean_error(one).has_value());
  EXPECT_FALSE(bootstrap_error(one, perplexity).has_value());
  EXPECT_THROW(mean({}), UsageError);
}

TEST(Metrics, WeighGroupsByTheirDocuments) {
  const std::vector<double> values = {0.5, 0.25};
  const std::vector<double> errors = {0.1, 0.2};
  const std::vector<std::int64_t> sizes = {10, 30};
  EXPECT_DOUBLE_EQ(weighted_mean(values, sizes), 12.5 / 40);
  // (9 * 10 * 0.01 + 29 * 30 * 0.04) / (40 - 2) / 40 = 35.7 / 1520
  EXPECT_DOUBLE_EQ(pooled_error(errors, sizes), std::sqrt(35.7 / 1520));
}

// One group of all documents has the error of their plain mean: n (n-1) e^2 / (n-1) / n = e^2.
TEST(Metrics, PoolOneGroupToItsOwnError) {
  EXPECT_DOUBLE_EQ(pooled_error(std::vector<double>{0.125}, std::vector<std::int64_t>{7}), 0.125);
}

TEST(PairedDifference, IsZeroWideWhenEveryPairDiffersAlike) {
  const std::vector<double> before = {0, 5, -3, 8};
  const std::vector<double> after = {1, 6, -2, 9};
  const Estimate estimate = paired_difference(before, after);
  EXPECT_EQ(estimate.value, 1);
  EXPECT_EQ(estimate.low, 1);
  EXPECT_EQ(estimate.high, 1);
}

TEST(PairedDifference, MatchesAHandWorkedCase) {
  // Differences -1, 0, 0, 1, 0: mean 0, deviation sqrt(2/4), error sqrt(0.5 / 5).
  const std::vector<double> before = {1, 0, 1, 0, 1};
  const std::vector<double> after = {0, 0, 1, 1, 1};
  const Estimate estimate = paired_difference(before, after);
  EXPECT_DOUBLE_EQ(estimate.high, 1.959963984540054 * std::sqrt(0.1));
  EXPECT_DOUBLE_EQ(estimate.low, -estimate.high);
  EXPECT_THROW(paired_difference(before, std::vector<double>{1}), UsageError);
}

TEST(Flips, AreCountedBothWaysWithMcNemarsExactTest) {
  const std::vector<double> before = {1, 1, 1, 1, 1, 0, 0};
  const std::vector<double> after = {0, 0, 0, 0, 0, 1, 0};
  const Flips flips = count_flips(before, after);
  EXPECT_EQ(flips.lost, 5);
  EXPECT_EQ(flips.gained, 1);
  EXPECT_NEAR(flips.p_value, 2 * (1 + 6) / 64.0, 1e-12);  // 2 P(X <= 1), X ~ B(6, 1/2)
  EXPECT_EQ(count_flips(before, before).p_value, 1);
}

TEST(Quantile, InterpolatesBetweenNeighbours) {
  const std::vector<double> values = {4, 1, 3, 2};
  EXPECT_EQ(quantile(values, 0), 1);
  EXPECT_EQ(quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 3.7);
  EXPECT_EQ(quantile(values, 1), 4);
  EXPECT_THROW(quantile({}, 0.5), UsageError);
  EXPECT_THROW(quantile(values, 1.5), UsageError);
}

std::vector<double> normal_values(std::uint64_t seed, std::size_t count) {
  std::vector<double> values(count);
  const CounterRandom random(seed, "test");
  for (std::size_t i = 0; i < count; ++i) values[i] = random.normal(i);
  return values;
}

double mean_of(const std::vector<double>& values, std::span<const std::int64_t> blocks) {
  double sum = 0;
  for (const std::int64_t block : blocks) sum += values[block];
  return sum / static_cast<double>(blocks.size());
}

// The bootstrap's interval of a mean is 1.96 sd / sqrt(n) on both sides, but for n-1 against n
// (0.3 %) and the noise of 2000 draws: a 2.5 % quantile is off by about 5 % of that half width.
TEST(BlockBootstrap, AgreesWithTheNormalIntervalOfAMean) {
  const std::vector<double> values = normal_values(1, 200);
  const Estimate estimate =
      block_bootstrap(200, [&](auto blocks) { return mean_of(values, blocks); });
  const double half = 1.96 * mean_error(values).value();
  EXPECT_DOUBLE_EQ(estimate.value, mean(values));
  EXPECT_NEAR(estimate.high - estimate.value, half, 0.15 * half);
  EXPECT_NEAR(estimate.value - estimate.low, half, 0.15 * half);
}

// 95 % of intervals must hold the truth; of 200, fewer than 180 or more than 199 would be a 3 sigma
// event at 95 % (the small sample costs one or two per cent).
TEST(BlockBootstrap, CoversTheTruthAboutAsOftenAsItSays) {
  int covered = 0;
  for (std::uint64_t trial = 0; trial < 200; ++trial) {
    const std::vector<double> values = normal_values(100 + trial, 40);
    const Estimate estimate = block_bootstrap(
        40, [&](auto blocks) { return mean_of(values, blocks); }, {.draws = 400, .seed = trial});
    covered += estimate.low <= 0 && 0 <= estimate.high;
  }
  EXPECT_GE(covered, 178);
  EXPECT_LE(covered, 199);
}

TEST(BlockBootstrap, IsTheSameWhateverRanBeforeAndTheValueAloneForOneBlock) {
  const std::vector<double> values = normal_values(5, 30);
  const auto statistic = [&](auto blocks) { return mean_of(values, blocks); };
  const Estimate first = block_bootstrap(30, statistic);
  block_bootstrap(7, statistic, {.draws = 10, .seed = 3});
  const Estimate second = block_bootstrap(30, statistic);
  EXPECT_EQ(first.low, second.low);
  EXPECT_EQ(first.high, second.high);
  const Estimate one = block_bootstrap(1, statistic);
  EXPECT_EQ(one.low, values[0]);
  EXPECT_EQ(one.high, values[0]);
}

std::vector<WindowDivergence> some_windows() {
  std::vector<WindowDivergence> windows(5);
  const CounterRandom random(9, "test");
  std::uint64_t index = 0;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    for (std::size_t k = 0; k < 40 + 10 * i; ++k) {
      windows[i].nats.push_back(static_cast<float>(random.uniform(index++)));
    }
    windows[i].same_top = static_cast<std::int64_t>(30 + i);
    windows[i].teacher_log_likelihood = -100.0 - static_cast<double>(i);
    windows[i].model_log_likelihood = -110.0 - static_cast<double>(i);
  }
  return windows;
}

TEST(Divergence, SummarizesAllPositionsTogether) {
  const auto windows = some_windows();
  std::vector<double> all;
  for (const auto& window : windows) all.insert(all.end(), window.nats.begin(), window.nats.end());
  const DivergenceSummary summary = summarize(windows);
  EXPECT_EQ(summary.positions, 300);
  EXPECT_DOUBLE_EQ(summary.mean.value, mean(all));
  EXPECT_DOUBLE_EQ(summary.median.value, quantile(all, 0.5));
  EXPECT_DOUBLE_EQ(summary.p99.value, quantile(all, 0.99));
  EXPECT_DOUBLE_EQ(summary.p999.value, quantile(all, 0.999));
  EXPECT_EQ(summary.max, *std::max_element(all.begin(), all.end()));
  EXPECT_DOUBLE_EQ(summary.same_top.value, 160.0 / 300);
  EXPECT_DOUBLE_EQ(summary.perplexity.value, std::exp(560.0 / 300));
  EXPECT_DOUBLE_EQ(summary.perplexity_ratio.value, std::exp(50.0 / 300));
}

// The walk over ranked values against sorting each resampled set.
void expect_quantiles_of_the_slow_way(const std::vector<WindowDivergence>& windows) {
  const BootstrapOptions options{.draws = 200, .seed = 4};
  const auto slow = [&](double share) {
    return block_bootstrap(
        static_cast<std::int64_t>(windows.size()),
        [&](std::span<const std::int64_t> blocks) {
          std::vector<double> all;
          for (const std::int64_t block : blocks) {
            all.insert(all.end(), windows[block].nats.begin(), windows[block].nats.end());
          }
          return quantile(all, share);
        },
        options);
  };
  const auto expect_equal = [](const Estimate& got, const Estimate& expected) {
    EXPECT_DOUBLE_EQ(got.value, expected.value);
    EXPECT_DOUBLE_EQ(got.low, expected.low);
    EXPECT_DOUBLE_EQ(got.high, expected.high);
  };
  const DivergenceSummary summary = summarize(windows, options);
  expect_equal(summary.median, slow(0.5));
  expect_equal(summary.p90, slow(0.9));
  expect_equal(summary.p95, slow(0.95));
  expect_equal(summary.p999, slow(0.999));
}

TEST(Divergence, ResamplesQuantilesAsTheSlowWayDoes) {
  expect_quantiles_of_the_slow_way(some_windows());
}

// Quantiles then lie between windows, some of which a draw has left out.
TEST(Divergence, ResamplesQuantilesOfWindowsOfOnePosition) {
  std::vector<WindowDivergence> windows(6);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    windows[i].nats = {static_cast<float>(i * i)};
    windows[i].teacher_log_likelihood = windows[i].model_log_likelihood = -1;
  }
  expect_quantiles_of_the_slow_way(windows);
}

TEST(Divergence, RefusesNothingAndNumbersThatAreNotFinite) {
  EXPECT_THROW(summarize({}), UsageError);
  auto windows = some_windows();
  windows[2].nats[1] = std::nanf("");
  EXPECT_THROW(summarize(windows), NumericRefusal);
  windows = some_windows();
  windows[0].nats.clear();
  EXPECT_THROW(summarize(windows), UsageError);
}

}  // namespace
}  // namespace attar::eval
