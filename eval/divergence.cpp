#include "eval/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "compress/core/errors.h"

namespace attar::eval {
namespace {

constexpr std::array<double, 5> kShares = {0.5, 0.9, 0.95, 0.99, 0.999};

struct Ranked {
  float nats;
  std::uint32_t window;
};

// All positions of all windows, smallest first. Equal values keep no order worth having.
std::vector<Ranked> ranked(std::span<const WindowDivergence> windows) {
  std::vector<Ranked> all;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    for (const float value : windows[i].nats) all.push_back({value, static_cast<unsigned>(i)});
  }
  std::sort(all.begin(), all.end(), [](const Ranked& a, const Ranked& b) {
    return a.nats != b.nats ? a.nats < b.nats : a.window < b.window;
  });
  return all;
}

// Quantiles of the values with each window taken `times[window]` times, in one walk.
std::array<double, kShares.size()> quantiles(const std::vector<Ranked>& all,
                                             const std::vector<std::int64_t>& times) {
  std::int64_t total = 0;
  for (const Ranked& entry : all) total += times[entry.window];
  std::array<double, kShares.size()> result{};
  std::int64_t passed = 0;  // values up to and with `entry`
  std::size_t at = 0;
  for (std::size_t q = 0; q < kShares.size(); ++q) {
    const double place = kShares[q] * static_cast<double>(total - 1);
    const auto rank = static_cast<std::int64_t>(place);
    while (passed + times[all[at].window] <= rank) passed += times[all[at++].window];
    const double below = all[at].nats;
    double above = below;
    if (rank + 1 < total && passed + times[all[at].window] == rank + 1) {
      std::size_t next = at + 1;
      while (times[all[next].window] == 0) ++next;
      above = all[next].nats;
    }
    result[q] = below + (above - below) * (place - static_cast<double>(rank));
  }
  return result;
}

// Intervals of all quantiles from the same draws.
std::array<Estimate, kShares.size()> quantile_estimates(std::span<const WindowDivergence> windows,
                                                        const BootstrapOptions& options) {
  const std::vector<Ranked> all = ranked(windows);
  const auto value = quantiles(all, std::vector<std::int64_t>(windows.size(), 1));
  std::array<Estimate, kShares.size()> result;
  std::array<std::vector<double>, kShares.size()> drawn;
  std::vector<std::int64_t> blocks(windows.size());
  for (std::int64_t draw = 0; draw < options.draws && windows.size() > 1; ++draw) {
    draw_blocks(draw, options, blocks);
    std::vector<std::int64_t> times(windows.size(), 0);
    for (const std::int64_t block : blocks) ++times[block];
    const auto of_draw = quantiles(all, times);
    for (std::size_t q = 0; q < kShares.size(); ++q) drawn[q].push_back(of_draw[q]);
  }
  for (std::size_t q = 0; q < kShares.size(); ++q) {
    result[q] = {value[q], value[q], value[q]};
    if (drawn[q].empty()) continue;
    result[q].low = quantile(drawn[q], 0.025);
    result[q].high = quantile(drawn[q], 0.975);
  }
  return result;
}

void check(std::span<const WindowDivergence> windows) {
  require<UsageError>(!windows.empty(), "divergence", "there are no windows to summarize");
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const WindowDivergence& window = windows[i];
    require<UsageError>(!window.nats.empty(), "divergence", "window ", i, " has no positions");
    const bool finite = std::all_of(window.nats.begin(), window.nats.end(),
                                    [](float value) { return std::isfinite(value); }) &&
                        std::isfinite(window.teacher_log_likelihood) &&
                        std::isfinite(window.model_log_likelihood);
    require<NumericRefusal>(finite, "divergence", "window ", i,
                            " holds a number that is not finite; the model is broken there");
  }
}

}  // namespace

DivergenceSummary summarize(std::span<const WindowDivergence> windows,
                            const BootstrapOptions& options) {
  check(windows);
  DivergenceSummary summary;
  summary.windows = static_cast<std::int64_t>(windows.size());
  std::vector<double> counts;
  std::vector<double> sums;
  std::vector<double> tops;
  std::vector<double> teacher;
  std::vector<double> model;
  std::vector<double> excess;
  std::vector<double> outside;
  for (const WindowDivergence& window : windows) {
    summary.positions += static_cast<std::int64_t>(window.nats.size());
    summary.max =
        std::max<double>(summary.max, *std::max_element(window.nats.begin(), window.nats.end()));
    counts.push_back(static_cast<double>(window.nats.size()));
    sums.push_back(std::accumulate(window.nats.begin(), window.nats.end(), 0.0));
    tops.push_back(static_cast<double>(window.same_top));
    teacher.push_back(window.teacher_log_likelihood);
    model.push_back(window.model_log_likelihood);
    outside.push_back(window.outside);
    excess.push_back(window.model_log_likelihood - window.teacher_log_likelihood);
  }
  const auto same = [](double x) { return x; };
  const auto to_perplexity = [](double x) { return std::exp(-x); };
  summary.mean = bootstrap_ratio(sums, counts, same, options);
  summary.same_top = bootstrap_ratio(tops, counts, same, options);
  summary.teacher_perplexity = bootstrap_ratio(teacher, counts, to_perplexity, options);
  summary.perplexity = bootstrap_ratio(model, counts, to_perplexity, options);
  summary.perplexity_ratio = bootstrap_ratio(excess, counts, to_perplexity, options);
  summary.outside = bootstrap_ratio(outside, counts, same, options);
  const auto estimates = quantile_estimates(windows, options);
  summary.median = estimates[0];
  summary.p90 = estimates[1];
  summary.p95 = estimates[2];
  summary.p99 = estimates[3];
  summary.p999 = estimates[4];
  return summary;
}

}  // namespace attar::eval
