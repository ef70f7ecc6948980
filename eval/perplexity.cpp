#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"
#include "eval/encoding.h"

namespace attar::eval {

PerplexityResult measure_perplexity(std::string_view text, LanguageModel& model,
                                    const PerplexityOptions& options) {
  // A window's last token is predicted only, so a window may be one longer than the model.
  const std::int64_t length = options.window;
  require<UsageError>(length >= 2 && length <= model.max_length() + 1, "perplexity",
                      "length must be in [2, ", model.max_length() + 1, "], one more than the ",
                      "model's positions at most, got ", length,
                      "; set length=", model.max_length());
  require<UsageError>(options.max_windows.value_or(1) > 0, "perplexity",
                      "max_windows must be positive, got ", options.max_windows.value_or(1));
  const std::vector<TokenId> ids = encode_prompt(model.tokenizer(), text);
  const auto whole = static_cast<std::int64_t>(ids.size()) / length;
  require(whole > 0, "perplexity", "the text has ", ids.size(), " tokens, less than one window of ",
          length, "; give more text or a smaller window");
  const std::int64_t total = std::min(whole, options.max_windows.value_or(whole));

  PerplexityResult result;
  for (std::int64_t i = 0; i < total; ++i) {
    const auto window = std::span(ids).subspan(i * length, length);
    const std::vector<TokenId> targets(window.begin() + 1, window.end());
    const auto scores = model.score(window.first(1), std::span(&targets, 1));
    const double loss = -scores[0].log_likelihood / static_cast<double>(targets.size());
    require<NumericRefusal>(std::isfinite(loss), "perplexity", "the loss of window ", i, " is ",
                            loss, "; the model's weights or activations are broken");
    result.window_losses.push_back(loss);
    result.scored_tokens += length - 1;
    if (options.progress) options.progress(i + 1, total);
  }
  const std::vector<double> ones(result.window_losses.size(), 1);
  result.perplexity =
      bootstrap_ratio(result.window_losses, ones, [](double loss) { return std::exp(loss); });
  return result;
}

}  // namespace attar::eval
