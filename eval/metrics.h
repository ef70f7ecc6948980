// Aggregates and standard errors with lm-evaluation-harness's formulas, in its order of summation.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

namespace attar::eval {

// Sum in order, divided by the count. Throws UsageError on nothing.
double mean(std::span<const double> values);

// Sample standard deviation, n - 1. Needs two values.
double sample_deviation(std::span<const double> values);

// sample_deviation / sqrt(n); nothing for fewer than two values.
std::optional<double> mean_error(std::span<const double> values);

// exp of minus the mean: one log-likelihood a document, whatever its length in tokens.
double perplexity(std::span<const double> log_likelihoods);

// Deviation of `statistic` over `draws` resamplings of the values, drawn with CPython's generator
// in chunks of 1,000 seeded 0, 1, 2, ...; nothing for fewer than two values. `draws` is a positive
// multiple of 1,000 or below it.
std::optional<double> bootstrap_error(
    std::span<const double> values, const std::function<double(std::span<const double>)>& statistic,
    std::int64_t draws = 100'000);

// Micro average over the documents of several tasks.
double weighted_mean(std::span<const double> values, std::span<const std::int64_t> sizes);

// Pooled standard error of that: sqrt(sum((n_i - 1) n_i e_i^2) / (N - k) / N).
double pooled_error(std::span<const double> errors, std::span<const std::int64_t> sizes);

}  // namespace attar::eval
