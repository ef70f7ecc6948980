#include "quantize/autoround_pass.h"

#include <sstream>

#include "compress/calibrate/layer_walk.h"
#include "compress/core/errors.h"

namespace attar {
namespace {

bool in_codes(const Weight& weight) { return std::holds_alternative<QuantizedWeight>(weight); }

std::string verdict_of(const BlockRounding& found) {
  std::ostringstream text;
  text.precision(4);
  text << "error of the block's outputs on held-out windows " << found.before << " before, "
       << found.after << " after; "
       << 100.0 * static_cast<double>(found.changed) / static_cast<double>(found.codes)
       << " % of the codes are others" << (found.kept_start ? "; the start was kept" : "");
  return text.str();
}

}  // namespace

std::vector<PlannedLayer> AutoroundPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned = plan_every_layer(config, "rounding learnt, same grid");
  for (PlannedLayer& layer : planned) layer.changes = false, layer.keeps_zeros = true;
  return planned;
}

std::int64_t AutoroundPass::working_bytes(const ModelConfig& config) const {
  std::int64_t weights = 0;
  for (const Role role : kRoles) {
    const LinearShape shape = shape_of(config, role);
    weights += shape.out * shape.in;
  }
  // Values, places, two gradients of each and two moments; a step's activations and their
  // gradients.
  constexpr std::int64_t kTokens = 1024;
  const std::int64_t row =
      2 * config.q_width() + 2 * config.kv_width() + 4 * config.hidden + 3 * config.ffn;
  return 4 * (7 * weights + 2 * kTokens * row);
}

void AutoroundPass::run_block(BlockWork& work) const {
  const auto since = std::chrono::steady_clock::now();
  bool learns = false;
  for (const Role role : roles_of(work.block)) {
    if (!in_codes(work.block[role].weight)) {
      record_skipped(work, role, "not in codes");
    } else if (in_codes(work.original[role].weight)) {
      record_skipped(work, role, "in codes before, so its plain weights are gone");
    } else {
      learns = true;
    }
  }
  if (!learns) return;

  const BlockEnds ends =
      work.stream->ends(work.block, work.original, config_.towards_dense, work.context);
  const BlockRounding found = learn_rounding(work.config, work.block, work.original, work.kept,
                                             ends, config_, work.context);
  const std::string block = "model.layers." + std::to_string(work.index);
  if (found.nonfinite_steps > 0) {
    record_event(work, block, "nonfinite_steps",
                 std::to_string(found.nonfinite_steps) +
                     " steps had a gradient that is not finite and were left out",
                 /*fallback=*/true);
  }
  if (found.learnt.empty()) return;
  record_event(work, block, found.kept_start ? "autoround_kept_start" : "autorounded",
               verdict_of(found), /*fallback=*/false);
  if (found.kept_start) return;
  for (const Role role : found.learnt) {
    record_changed(work, role, found.block[role].weight, "autoround", found.after, found.before,
                   since);
  }
}

}  // namespace attar
