// Perplexity over one stream of tokens by the protocol of the GPTQ paper (Frantar et al. 2022): the
// whole text is tokenized at once and cut into windows that do not overlap; the tail is dropped, no
// BOS is put in front of a window, and its first token is context only. Not comparable with the
// perplexities of wikitext.h.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "compress/runtime/language_model.h"
#include "eval/statistics.h"

namespace attar::eval {

struct PerplexityOptions {
  std::int64_t window = 2048;                                                // tokens, at least 2
  std::optional<std::int64_t> max_windows = {};                              // the first so many
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};  // may throw to stop
};

struct PerplexityResult {
  std::vector<double> window_losses;  // nats a token: mean over window - 1 targets
  std::int64_t scored_tokens = 0;
  Estimate perplexity;  // exp of the mean of the windows' means, block bootstrap over windows
};

// Throws UsageError for a window that the model cannot hold, BadInput for a text shorter than one
// window, NumericRefusal if a loss is not finite.
PerplexityResult measure_perplexity(std::string_view text, LanguageModel& model,
                                    const PerplexityOptions& options);

}  // namespace attar::eval
