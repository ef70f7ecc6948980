#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "compress/calibrate/layer_walk.h"
#include "compress/linalg/corrected_target.h"
#include "quantize/gptq.h"
#include "quantize/passes.h"

namespace attar {
namespace {

GptqOptions options_of(const GptqConfig& config, bool strict) {
  GptqOptions options;
  options.act_order = config.act_order;
  options.static_groups = config.static_groups;
  options.search = config.search;
  options.damping = config.damping;
  options.refits = config.refits;
  options.descents = config.descents;
  options.round_plainly_on_failure = !strict;
  return options;
}

}  // namespace

GptqPass::GptqPass(GptqConfig config)
    : config_(std::move(config)), rules_(config_, std::string(kName)) {
  require<UsageError>(config_.static_groups || !config_.act_order, kName,
                      "act_order: true needs static_groups: true; groups of a file are "
                      "neighbouring columns");
}

std::vector<PlannedLayer> GptqPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned = rules_.plan(config, "gptq");
  for (PlannedLayer& layer : planned) layer.compensates = layer.scheme.has_value();
  return planned;
}

std::int64_t GptqPass::working_bytes(const ModelConfig& config) const {
  // Of each layer the larger of: H, its damped copy (float64) and the factor (float32), the weight;
  // H and its float32 copy, and the weight five times over when losses are computed.
  std::int64_t most = 0;
  for (const Role role : kRoles) {
    const LinearShape shape = shape_of(config, role);
    const std::int64_t square = shape.in * shape.in, weight = shape.out * shape.in;
    most = std::max({most, 20 * square + 4 * weight, 12 * square + 5 * 4 * weight});
    // H, the cross products, a damped copy and its factor; weight, target and change in float64.
    if (config_.towards_dense > 0) {
      most = std::max({most, 32 * square + 28 * weight, 28 * square + 8 * weight});
    }
  }
  return most;
}

at::Tensor GptqPass::aim(const at::Tensor& weight, const at::Tensor& gram,
                         const linalg::CrossGram* cross) const {
  if (cross == nullptr) return weight;
  const at::Tensor values = weight.to(at::kDouble);
  const at::Tensor whole =
      linalg::corrected_target(values, values.mm(cross->gram), gram, config_.damping);
  if (!whole.defined()) return weight;
  // Far from the weight is where little text says much.
  constexpr double kFar = 0.3;
  const at::Tensor change = whole - values;
  const double far = change.norm().item<double>() / values.norm().item<double>();
  const double share = std::min(config_.towards_dense, kFar / far);
  return share > 0 ? (values + share * change).to(at::kFloat) : weight;
}

void GptqPass::run_block(BlockWork& work) const {
  const auto change = [&](Site site, const linalg::GramStatistics& statistics,
                          const linalg::CrossGram* cross) {
    record_dropped(work, site, statistics);
    for (const Role role : kRoles) {
      if (site_of(role) != site) continue;
      const auto since = std::chrono::steady_clock::now();
      const SchemeDecision decision = rules_.decide(work.index, role, &work.config);
      if (!decision.scheme) {
        record_skipped(work, role, decision.rule);
        continue;
      }
      work.context.check_stop();
      const std::string layer = layer_name(work.index, role);
      GptqOptions options = options_of(config_, work.context.strict);
      options.keep = kept_positions(work.block[role].weight);
      at::Tensor target = aim(dense(work.block[role].weight), statistics.gram, cross);
      if (options.keep.defined()) target = target * options.keep;
      GptqResult result = gptq_quantize(target, statistics.gram, *decision.scheme, options, layer);
      if (!result.dead_columns.empty()) {
        record_event(work, layer, "dead_columns",
                     std::to_string(result.dead_columns.size()) +
                         " input columns were never active in the calibration text; their "
                         "weights became 0",
                     /*fallback=*/false);
      }
      for (const std::string& text : result.fallbacks) {
        record_event(work, layer, result.rounded_plainly ? "rtn_fallback" : "damping", text,
                     /*fallback=*/true);
      }
      record_changed(work, role, std::move(result.weight),
                     "gptq " + describe_scheme(*decision.scheme), result.loss, result.rtn_loss,
                     since);
    }
  };
  if (config_.towards_dense == 0) {
    work.stream->sequential(work.block, work.context,
                            [&](Site site, const linalg::GramStatistics& statistics) {
                              change(site, statistics, nullptr);
                            });
    return;
  }
  work.stream->sequential(
      work.block, work.original, work.context,
      [&](Site site, const linalg::GramStatistics& statistics, const linalg::CrossGram& cross) {
        change(site, statistics, &cross);
      });
}

}  // namespace attar
