// How far a model's next-token distributions lie from its teacher's, in nats, over windows of text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/statistics.h"

namespace attar::eval {

// One window of text: a number for each position that was scored.
struct WindowDivergence {
  // KL(teacher || model). Where the model has fewer tokens, the teacher's distribution is the one
  // over these, made to sum to 1, here and in its likelihood.
  std::vector<float> nats;
  std::int64_t same_top = 0;          // positions at which both rank the same token first
  double teacher_log_likelihood = 0;  // sum over the positions, nats
  double model_log_likelihood = 0;
  double outside = 0;  // sum of the teacher's probability of tokens that the model does not have
};

// Intervals come from a block bootstrap over the windows.
struct DivergenceSummary {
  std::int64_t windows = 0;
  std::int64_t positions = 0;
  Estimate mean;
  Estimate median;
  Estimate p90;
  Estimate p95;
  Estimate p99;
  Estimate p999;
  double max = 0;       // no interval: resampling cannot see beyond the largest
  Estimate same_top;    // share of positions
  Estimate perplexity;  // of the model
  Estimate teacher_perplexity;
  Estimate perplexity_ratio;  // model / teacher, paired by window
  Estimate outside;  // mean probability that the teacher gives to tokens the model does not have
};

// Throws UsageError without windows or positions, NumericRefusal if a number is not finite.
DivergenceSummary summarize(std::span<const WindowDivergence> windows,
                            const BootstrapOptions& options = {});

}  // namespace attar::eval
