#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>

#include "compress/calibrate/layer_walk.h"
#include "compress/linalg/decomposition.h"
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
    // H, the cross products, the inverse factor and what it was worked out with; the weight, its
    // change and their sum, strips of them in float64. Then what is above, the cross products
    // beside it while other layers of the input wait.
    if (config_.towards_dense > 0) {
      constexpr std::int64_t kStrips = 4 * 8 * 512;
      const std::int64_t waiting = role == Role::kDown || role == Role::kOutput ? 0 : 8 * square;
      most = std::max({most, 26 * square + 12 * weight + kStrips * shape.in,
                       20 * square + 12 * weight + waiting, 12 * square + 24 * weight + waiting});
    }
  }
  return most;
}

at::Tensor GptqPass::aim(const at::Tensor& weight, const at::Tensor& gram,
                         const linalg::CrossGram* cross) const {
  if (cross == nullptr) return weight;
  // linalg::corrected_target, but a strip of rows at a time in float64.
  const double lambda = config_.damping * gram.diagonal().mean().item<double>();
  at::Tensor damped = gram.clone(at::MemoryFormat::Contiguous);
  damped.diagonal().add_(lambda);
  const linalg::RightSolver solver(std::move(damped));
  if (!solver.ok()) return weight;
  constexpr std::int64_t kRows = 512;
  at::Tensor change = at::empty(weight.sizes(), at::kFloat);
  double moved = 0, size = 0;
  for (std::int64_t row = 0; row < weight.size(0); row += kRows) {
    const std::int64_t count = std::min(kRows, weight.size(0) - row);
    const at::Tensor values = weight.narrow(0, row, count).to(at::kDouble);
    const at::Tensor step = solver.solve(values.mm(cross->gram) + lambda * values) - values;
    moved += step.square().sum(1).sum().item<double>();
    size += values.square().sum(1).sum().item<double>();
    change.narrow(0, row, count).copy_(step);
  }
  // Far from the weight is where little text says much.
  constexpr double kFar = 0.3;
  const double share = std::min(config_.towards_dense, kFar / std::sqrt(moved / size));
  return share > 0 ? weight + share * change : weight;
}

void GptqPass::run_block(BlockWork& work) const {
  const auto change = [&](Site site, const linalg::GramStatistics& statistics,
                          linalg::CrossGram* cross) {
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
      if (cross != nullptr && (role == Role::kOutput || role == Role::kDown)) {
        cross->gram.reset();  // n^2 doubles, which nobody else reads
      }
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
  work.stream->sequential(work.block, work.original, work.context,
                          [&](Site site, const linalg::GramStatistics& statistics,
                              linalg::CrossGram& cross) { change(site, statistics, &cross); });
}

}  // namespace attar
