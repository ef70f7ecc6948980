#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include "compress/calibrate/layer_walk.h"
#include "compress/linalg/quadratic_loss.h"
#include "quantize/awq.h"
#include "quantize/channel_scales.h"
#include "quantize/gptq.h"
#include "quantize/passes.h"

namespace attar {
namespace {

constexpr const char* kNobodyRounds = "no later pass rounds it, and no grid was given";

using Statistics = std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()>;

}  // namespace

AwqPass::AwqPass(AwqConfig config)
    : config_(std::move(config)), rules_(config_, std::string(kName)) {}

std::optional<AwqPass::Target> AwqPass::target(std::int64_t block, Role role) const {
  const SchemeDecision decision = rules_.decide(block, role);
  if (!decision.scheme) return std::nullopt;
  const auto later = later_.find({block, role});
  if (later != later_.end()) return Target{later->second.scheme, true, later->second.compensates};
  if (!rounds_itself()) return std::nullopt;
  return Target{*decision.scheme};
}

// In front of a pass that rounds it leaves the layers that one skips, unless it was given a grid.
bool AwqPass::rounds_itself() const {
  const GridConfig defaults;
  return later_.empty() || !config_.rules.empty() || config_.bits != defaults.bits ||
         config_.group_size != defaults.group_size || config_.symmetric != defaults.symmetric ||
         config_.scale_type != defaults.scale_type;
}

void AwqPass::see_later(std::span<const PassPlan> plans) {
  later_.clear();
  for (const PassPlan& plan : plans) {
    for (const PlannedLayer& layer : plan.layers) {
      if (!layer.scheme) continue;
      later_.try_emplace({layer.block, layer.role}, Later{*layer.scheme, layer.compensates});
    }
  }
}

std::vector<PlannedLayer> AwqPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned =
      rules_.plan(config, "awq", [&](std::int64_t block, Role role) {
        return rounds_itself() && !later_.contains({block, role});
      });
  for (PlannedLayer& layer : planned) {
    const std::optional<Target> goal = target(layer.block, layer.role);
    if (!goal && layer.scheme) {
      layer.scheme.reset();
      layer.changes = false;
      layer.rule = kNobodyRounds;
      layer.action = "unchanged";
    }
    if (!goal || !goal->later) continue;
    layer.action = "awq scales for " + describe(goal->scheme) + ", rounded by a later pass";
    layer.scheme.reset();
    layer.keeps_zeros = true;
  }
  return planned;
}

std::int64_t AwqPass::working_bytes(const ModelConfig& config) const {
  const std::int64_t d = config.hidden, q = config.q_width(), f = config.ffn;
  // Grams of all inputs, copies of the widest while it is scaled or ordered, weights.
  return 8 * (2 * d * d + q * q + f * f) + 20 * f * f + 4 * 3 * d * f;
}

void AwqPass::run_block(BlockWork& work) const {
  const Statistics statistics = work.stream->collect(work.block, work.context);
  std::array<at::Tensor, kSites.size()> scales;  // [I] float32; undefined: 1
  std::array<double, kRoles.size()> losses{}, plain_losses{};

  for (const ChannelGroup& group : channel_groups_of(work.block)) {
    work.context.check_stop();
    const linalg::GramStatistics& input = *statistics[index_of(group.site)];
    record_dropped(work, group.site, input);
    // Scaling changes every reader and the producer: only where the rules allow all of them.
    const std::vector<Role> touched = group.touched();
    const bool allowed = std::all_of(touched.begin(), touched.end(), [&](Role role) {
      return target(work.index, role).has_value();
    });
    if (!allowed) continue;
    AwqProblem problem;
    for (const Role role : group.readers) {
      problem.weights.push_back(dense(work.block[role].weight));
    }
    // Of readers on several grids the coarsest has most to gain.
    const std::int64_t inputs = input.gram.size(0);
    Target goal = *target(work.index, group.readers.front());
    for (const Role role : group.readers) {
      const Target other = *target(work.index, role);
      if (other.scheme.bits_per_weight(inputs) < goal.scheme.bits_per_weight(inputs)) goal = other;
    }
    goal.scheme = fitted(goal.scheme, inputs);
    problem.gram = input.gram;
    problem.mean_absolute = input.mean_absolute();
    if (group.site == Site::kOutputInput) {
      problem.tied =
          tied_over_query_heads(work.config.heads, work.config.kv_heads, work.config.head_dim);
    }
    const AwqScales found = search_awq_scales(problem, goal.scheme,
                                              {.steps = config_.steps,
                                               .weight_scale = config_.weight_scale,
                                               .sample_rows = goal.compensates ? 96 : 192,
                                               .for_gptq = goal.compensates});
    scales[index_of(group.site)] = found.scale;
    for (const Role role : group.readers) {
      losses[index_of(role)] = found.loss;
      plain_losses[index_of(role)] = found.plain_loss;
    }
  }

  for (const ChannelGroup& group : channel_groups_of(work.block)) {
    const at::Tensor& scale = scales[index_of(group.site)];
    if (!scale.defined()) continue;
    apply_channel_scale(work.block, group, scale, work.config);
    // What is compared with the unchanged block later must compare like with like.
    if (widths_of(work.original, work.config.head_dim) ==
        widths_of(work.block, work.config.head_dim)) {
      apply_channel_scale(work.original, group, scale, work.config);
    }
  }

  for (const Role role : roles_of(work.block)) {
    const auto since = std::chrono::steady_clock::now();
    const std::optional<Target> goal = target(work.index, role);
    if (!goal) {
      const SchemeDecision decision = rules_.decide(work.index, role);
      record_skipped(work, role, decision.scheme ? kNobodyRounds : decision.rule);
      continue;
    }
    work.context.check_stop();
    const Site site = site_of(role);
    if (goal->later) {
      LayerChange change;
      change.layer = layer_name(work.index, role);
      change.action = "awq scales for " + describe(goal->scheme);
      change.bytes_before = change.bytes_after = stored_bytes(work.block[role].weight);
      change.error = losses[index_of(role)];
      change.baseline_error = plain_losses[index_of(role)];
      work.context.progress(change.layer);
      work.report.changed.push_back(std::move(change));
      continue;
    }
    at::Tensor gram = statistics[index_of(site)]->gram;
    if (const at::Tensor& scale = scales[index_of(site)]; scale.defined()) {
      const at::Tensor inverse = scale.to(at::kDouble).reciprocal();
      gram = (gram * inverse).mul_(inverse.unsqueeze(1));
    }
    const at::Tensor weight = dense(work.block[role].weight);
    const Grid grid = config_.clip ? search_clipped_grid(weight, gram, goal->scheme)
                                   : choose_grid(weight, goal->scheme);
    QuantizedWeight rounded = quantize_to_grid(weight, grid);
    const at::Tensor nothing = at::zeros(weight.sizes(), at::kFloat);
    const double energy = linalg::hessian_loss(weight, nothing, gram);
    const double loss = linalg::hessian_loss(weight, dense(Weight(rounded)), gram);
    const double error = energy > 0 ? loss / energy : 0;
    record_changed(work, role, std::move(rounded), "awq " + describe(goal->scheme), error,
                   plain_losses[index_of(role)], since);
  }
}

}  // namespace attar
