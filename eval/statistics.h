// How sure a difference between a model and its teacher is. Both answer the same documents, so the
// difference is taken document by document, which leaves an error several times smaller than that
// of two scores apart.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace attar::eval {

// A value with the ends of an interval that covers 95 %.
struct Estimate {
  double value = 0;
  double low = 0;
  double high = 0;
};

// Mean of changed - original with the normal interval value +- 1.96 s / sqrt(n), s being the sample
// deviation of the differences. The interval of one pair is the value alone. Throws UsageError for
// different lengths or nothing.
Estimate paired_difference(std::span<const double> original, std::span<const double> changed);

// Documents that changed sides; a value above 0.5 counts as right.
struct Flips {
  std::int64_t lost = 0;    // right -> wrong
  std::int64_t gained = 0;  // wrong -> right
  // McNemar's exact two-sided test: how likely is a split at least this uneven, were both sides
  // equally likely; 1 without flips.
  double p_value = 1;
};
Flips count_flips(std::span<const double> original, std::span<const double> changed);

// The `share` quantile (0..1) with linear interpolation between neighbours (numpy's default).
// Sorts a copy. Throws UsageError on nothing or a share outside.
double quantile(std::span<const double> values, double share);

struct BootstrapOptions {
  std::int64_t draws = 2000;
  std::uint64_t seed = 0;
};

// The blocks of one draw: numbers in [0, blocks.size()), with replacement, from the counter (seed,
// draw, position), so a draw is the same whatever ran before.
void draw_blocks(std::int64_t draw, const BootstrapOptions& options,
                 std::span<std::int64_t> blocks);

// Block bootstrap: blocks (windows, pages, documents) are drawn with replacement, as many as there
// are, and `statistic` is asked for each draw with the numbers of the blocks; the interval lies
// between the 2.5 % and 97.5 % quantiles of what it answers. Tokens of one block stay together,
// since they are not independent. One block: the value alone.
Estimate block_bootstrap(std::int64_t blocks,
                         const std::function<double(std::span<const std::int64_t>)>& statistic,
                         const BootstrapOptions& options = {});

// block_bootstrap of transform(sum of sums / sum of weights): a mean over tokens from one sum and
// one count a block.
Estimate bootstrap_ratio(std::span<const double> sums, std::span<const double> weights,
                         const std::function<double(double)>& transform,
                         const BootstrapOptions& options = {});

}  // namespace attar::eval
