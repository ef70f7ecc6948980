#include <ATen/TensorOperators.h>

#include <algorithm>
#include <optional>

#include "compress/calibrate/layer_walk.h"
#include "compress/linalg/sweep_input.h"
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
  for (PlannedLayer& layer : planned) {
    layer.compensates = layer.scheme.has_value();
    if (!layer.scheme || layer.scheme->block == BlockGrid::kNone) continue;
    require<UsageError>(
        config_.static_groups && config_.refits == 0 && config_.descents == 0, kName,
        to_string(layer.scheme->block), " of ", layer_name(layer.block, layer.role),
        " needs static_groups: true, refits: 0 and descents: 0: its scales are not free, or its "
        "levels not evenly spaced");
  }
  return planned;
}

std::int64_t GptqPass::working_bytes(const ModelConfig& config) const {
  // Of an input: H and, while it is factored, a copy (float64), the factor and what the unchanged
  // model's inputs differ by (float32), and what the residual stream has lost (float64); of a layer
  // then, beside H, factor, difference and H in float32, the weight, its aim, values and change,
  // and what products pack.
  std::int64_t most = 0;
  for (const Role role : kRoles) {
    const LinearShape shape = shape_of(config, role);
    const std::int64_t square = shape.in * shape.in, weight = shape.out * shape.in;
    most = std::max({most, 24 * square + 12 * weight, 20 * square + 6 * 4 * weight});
  }
  return most;
}

void GptqPass::run_block(BlockWork& work) const {
  const auto change = [&](Site site, const linalg::GramStatistics& statistics,
                          linalg::CrossGram* cross) {
    record_dropped(work, site, statistics);
    std::optional<linalg::SweepInput> input;
    for (const Role role : roles_of(work.block)) {
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
      if (!input) {
        input.emplace(statistics.gram, cross,
                      linalg::SweepInputOptions{options.act_order, options.damping,
                                                config_.towards_dense, config_.follow},
                      layer);
      }
      const at::Tensor target = input->aim(dense(work.block[role].weight),
                                           dense(work.original[role].weight), options.keep);
      if (role == Role::kOutput || role == Role::kDown) input->done_aiming();  // read it alone
      GptqResult result = gptq_quantize(target, input->hessian(), *decision.scheme, options, layer);
      record_sweep(work, layer, result.dead_columns.size(), result.fallbacks,
                   result.rounded_plainly ? "rtn_fallback" : "damping");
      record_changed(work, role, std::move(result.weight), "gptq " + describe(*decision.scheme),
                     result.loss, result.rtn_loss, since);
    }
  };
  const Block* original = config_.towards_dense > 0 ? &work.original : nullptr;
  work.stream->sequential(work.block, original, work.context, change);
}

}  // namespace attar
