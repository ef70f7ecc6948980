#include "quantize/embedding_pass.h"

#include <chrono>

#include "compress/core/errors.h"
#include "quantize/embedding.h"
#include "quantize/rtn.h"

namespace attar {

std::optional<QuantScheme> EmbeddingPass::scheme(const ModelConfig& config,
                                                 const std::string& layer) const {
  if (config_.chosen.empty()) return grid_of(config_, config.hidden);
  const auto found = config_.chosen.find(layer);
  if (found == config_.chosen.end()) return std::nullopt;
  return found->second;
}

std::vector<PlannedLayer> EmbeddingPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned = plan_every_layer(config, "unchanged");
  for (PlannedLayer& layer : planned) layer.changes = false, layer.keeps_zeros = true;
  return planned;
}

PlannedRows EmbeddingPass::plan_rows(const ModelConfig& config) const {
  const QuantScheme grid = grid_of(config_, config.hidden);
  require<DoesNotFit>(grid.group_size == 0 || config.hidden % grid.group_size == 0, kName,
                      "group_size must divide the hidden size, got group_size=", grid.group_size,
                      ", hidden size=", config.hidden,
                      "; choose a divisor, or 0 for the whole row");
  return {config_.method + " " + describe(grid), false, grid};
}

std::int64_t EmbeddingPass::working_bytes(const ModelConfig& config) const {
  // The values, their codes, and some thousand rows five times over; rounding without states holds
  // the values once more.
  const std::int64_t each = config.tied_head && config_.method == "gptq" ? 5 : 9;
  return each * config.vocabulary * config.hidden + (std::int64_t{5} * 4 * 8192) * config.hidden;
}

Weight EmbeddingPass::rounded(ModelWork& work, const std::string& layer, const Weight& weight,
                              const at::Tensor& hessian) const {
  const auto since = std::chrono::steady_clock::now();
  const std::optional<QuantScheme> chosen = scheme(work.input.config(), layer);
  if (!chosen) return weight;
  const QuantScheme& grid = *chosen;
  LayerChange change{layer, "", stored_bytes(weight), 0};
  Weight result;
  if (hessian.defined()) {
    GptqOptions options;
    options.damping = config_.damping;
    options.round_plainly_on_failure = !work.context.strict;
    GptqResult found = gptq_rows(weight, hessian, grid, options, layer);
    for (const std::string& text : found.fallbacks) {
      require<NumericRefusal>(!work.context.strict, layer, text,
                              "; the recipe is strict, so this is refused");
      work.report.events.push_back(
          {layer, found.rounded_plainly ? "rtn_fallback" : "damping", text, true});
    }
    change.action = "gptq " + describe(grid);
    change.error = found.loss;
    change.baseline_error = found.rtn_loss;
    result = std::move(found.weight);
  } else {
    RtnResult found = rtn_quantize(dense(weight), grid, {.search = true});
    change.action = "rtn-search " + describe(grid);
    change.error = change.baseline_error = found.relative_error;
    result = std::move(found.weight);
  }
  change.bytes_after = stored_bytes(result);
  change.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  work.report.changed.push_back(std::move(change));
  return result;
}

void EmbeddingPass::run(ModelWork& work) const {
  const bool tied = work.input.config().tied_head;
  at::Tensor hessian;
  if (config_.method == "gptq") {
    const linalg::GramStatistics statistics =
        head_statistics(work.input, work.calibration->ids, work.context);
    if (statistics.dropped > 0) {
      const std::string text = std::to_string(statistics.dropped) +
                               " tokens whose final states are not finite were left out";
      require<NumericRefusal>(!work.context.strict, kName, text,
                              "; the recipe is strict, so this is refused");
      work.report.events.push_back({"lm_head", "nonfinite_tokens", text, true});
    }
    require<NumericRefusal>(statistics.tokens > 0, kName,
                            "no token of the calibration text leaves finite states; look at the "
                            "model with attar inspect, or round with method: rtn");
    hessian = statistics.gram.clone();
    // Channels that the head never sees are rounded by themselves: as inputs they may count.
    at::Tensor diagonal = hessian.diagonal();
    const double mean = diagonal.mean().item<double>();
    diagonal.masked_fill_(diagonal.le(0), mean > 0 ? mean : 1);
  }
  OuterWeights outer{
      rounded(work, "model.embed_tokens", work.input.embedding(), tied ? hessian : at::Tensor()),
      work.input.final_norm(), std::nullopt};
  if (!tied) outer.head = rounded(work, "lm_head", work.input.head(), hessian);
  work.output.put_outer(outer);
}

}  // namespace attar
