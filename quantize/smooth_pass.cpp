#include "quantize/smooth_pass.h"

#include "compress/calibrate/layer_walk.h"
#include "compress/core/rules.h"
#include "quantize/awq.h"
#include "quantize/scheme_rules.h"
#include "quantize/smooth.h"

namespace attar {

void SmoothPass::see_later(std::span<const PassPlan> plans) {
  later_.clear();
  for (const PassPlan& plan : plans) {
    for (const PlannedLayer& layer : plan.layers) {
      if (!layer.scheme || layer.scheme->activation_bits == 0) continue;
      later_.try_emplace({layer.block, layer.role}, *layer.scheme);
    }
  }
}

bool SmoothPass::scales(std::int64_t block, const ChannelGroup& group) const {
  return std::all_of(group.readers.begin(), group.readers.end(), [&](Role role) {
    return later_.contains({block, role}) && first_match(config_.layers, block, role) &&
           !first_match(config_.skip, block, role);
  });
}

std::vector<PlannedLayer> SmoothPass::plan(const ModelConfig& config) const {
  const std::string where(kName);
  require_matches(config_.layers, config, where + ".layers");
  require_matches(config_.skip, config, where + ".skip");
  require<UsageError>(!later_.empty(), where,
                      "no later pass rounds activations; give quantize.rtn or quantize.gptq behind "
                      "it activations: 8, or leave this pass out");
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      PlannedLayer layer{block,       role, false, "no layer whose input is rounded later",
                         "unchanged", {}};
      for (const ChannelGroup& group : channel_groups()) {
        if (!scales(block, group)) continue;
        const bool reads = site_of(role) == group.site;
        if (!reads && group.producer != role) continue;
        layer.changes = layer.keeps_zeros = true;
        layer.rule = reads ? "its input is rounded later" : "it feeds an input that is";
        layer.action = reads ? "smooth scales for " + describe(later_.at({block, role})) +
                                   ", rounded by a later pass"
                             : "divided by smooth scales";
        if (reads) break;
      }
      planned.push_back(std::move(layer));
    }
  }
  return planned;
}

std::int64_t SmoothPass::working_bytes(const ModelConfig& config) const {
  std::int64_t most = 0;
  for (const Role role : kRoles) {
    const LinearShape shape = shape_of(config, role);
    // Rows before and after rounding, outputs as they should be and are, the weight four times.
    most = std::max(
        most, 4 * (2 * config_.tokens * (shape.in + 2 * shape.out) + 4 * shape.in * shape.out));
  }
  return 2 * most;  // gate and up, q, k and v go together
}

void SmoothPass::run_block(BlockWork& work) const {
  const auto since = std::chrono::steady_clock::now();
  const auto inputs = work.stream->sample(work.block, work.context, config_.tokens);
  for (const ChannelGroup& group : channel_groups_of(work.block)) {
    const InputSample& input = inputs[index_of(group.site)];
    if (!scales(work.index, group)) {
      for (const Role role : group.readers) {
        record_skipped(work, role, "its input is not rounded later");
      }
      continue;
    }
    work.context.check_stop();
    if (input.dropped > 0) {
      record_event(work, layer_name(work.index, group.readers.front()), "nonfinite_tokens",
                   std::to_string(input.dropped) + " tokens held a NaN or an infinity",
                   /*fallback=*/false);
    }
    SmoothProblem problem;
    for (const Role role : group.readers) {
      problem.weights.push_back(dense(work.block[role].weight));
    }
    problem.rows = input.rows;
    problem.max_absolute = input.max_absolute;
    if (group.site == Site::kOutputInput) {
      problem.tied =
          tied_over_query_heads(work.config.heads, work.config.kv_heads, work.config.head_dim);
    }
    // Of readers on several grids the coarsest has most to gain.
    const std::int64_t inputs = input.max_absolute.size(0);
    QuantScheme scheme = later_.at({work.index, group.readers.front()});
    for (const Role role : group.readers) {
      const QuantScheme& other = later_.at({work.index, role});
      if (other.bits_per_weight(inputs) < scheme.bits_per_weight(inputs)) scheme = other;
    }
    const SmoothScales found = search_smooth_scales(problem, scheme, {.steps = config_.steps});
    apply_channel_scale(work.block, group, found.scale, work.config);
    // What is compared with the unchanged block later must compare like with like.
    if (widths_of(work.original, work.config.head_dim) ==
        widths_of(work.block, work.config.head_dim)) {
      apply_channel_scale(work.original, group, found.scale, work.config);
    }
    for (const Role role : group.readers) {
      LayerChange change;
      change.layer = layer_name(work.index, role);
      change.action = "smooth scales for " + describe(scheme);
      change.bytes_before = change.bytes_after = stored_bytes(work.block[role].weight);
      change.error = found.loss;
      change.baseline_error = found.plain_loss;
      work.context.progress(change.layer);
      work.report.changed.push_back(std::move(change));
    }
  }
  if (!work.report.changed.empty()) {
    work.report.changed.back().seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  }
}

}  // namespace attar
