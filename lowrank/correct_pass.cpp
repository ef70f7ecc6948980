#include <ATen/TensorOperators.h>

#include "compress/calibrate/block_identity.h"
#include "compress/calibrate/layer_walk.h"
#include "compress/linalg/corrected_target.h"
#include "lowrank/passes.h"
#include "lowrank/refit.h"

namespace attar {
namespace {

// The weight with a correction beside; empty for kinds that have factors already.
std::optional<CorrectedWeight> corrected(const Weight& weight, LowRankWeight correction) {
  if (const auto* plain = std::get_if<DenseWeight>(&weight)) {
    return CorrectedWeight{*plain, std::move(correction)};
  }
  if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) {
    return CorrectedWeight{*quantized, std::move(correction)};
  }
  if (const auto* sparse = std::get_if<SparseWeight>(&weight)) {
    return CorrectedWeight{*sparse, std::move(correction)};
  }
  return std::nullopt;
}

// Why a layer gets no correction; empty when it does.
std::string obstacle(const Block& block, const Block& original, Role role) {
  if (!corrected(block[role].weight, {})) {
    return "it is " + std::string(kind_of(block[role].weight)) + " already";
  }
  if (same_tensors(block[role].weight, original[role].weight)) {
    return "no pass before this one has changed it";
  }
  if (shape_of(block[role].weight) != shape_of(original[role].weight)) {
    return "a pass before this one has made it narrower";
  }
  return {};
}

}  // namespace

CorrectPass::CorrectPass(CorrectConfig config)
    : config_(std::move(config)), storage_(config_.storage(kName)) {}

std::vector<PlannedLayer> CorrectPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned =
      plan_layers(config_, config, kName,
                  "correction of rank " + std::to_string(config_.rank) + ", where changed");
  for (PlannedLayer& layer : planned) {
    if (!layer.changes) continue;
    layer.adds = true;
    layer.keeps_zeros = true;
    const LinearShape shape = shape_of(config, layer.block, layer.role);
    if (!shape.empty()) layer.parameters = parameters_of(shape, config_.rank, storage_);
  }
  return planned;
}

std::int64_t CorrectPass::working_bytes(const ModelConfig& config) const {
  const std::int64_t n = widest_input(config);
  return 8 * 4 * n * n;  // X X^T, X_dense X^T, their damped copy and its inverse
}

void CorrectPass::run_block(BlockWork& work) const {
  const auto at_site = [&](Site site, const linalg::GramStatistics& statistics,
                           linalg::CrossGram* cross) {
    record_dropped(work, site, statistics);
    if (cross != nullptr && !config_.follow) cross->residual = at::Tensor();
    for (const Role role : roles_of(work.block)) {
      if (site_of(role) == site) correct(work, role, statistics, cross);
    }
  };
  const Block* original = needs().dense_stream ? &work.original : nullptr;
  work.stream->sequential(work.block, original, work.context, at_site);
}

void CorrectPass::correct(BlockWork& work, Role role, const linalg::GramStatistics& statistics,
                          const linalg::CrossGram* cross) const {
  const auto since = std::chrono::steady_clock::now();
  const LayerDecision decision = decide(config_, work.index, role);
  if (!decision.changes) return record_skipped(work, role, decision.rule);
  if (const std::string why = obstacle(work.block, work.original, role); !why.empty()) {
    return record_skipped(work, role, why);
  }
  work.context.check_stop();
  const at::Tensor original = dense(work.original[role].weight).to(at::kDouble);
  const at::Tensor now = dense(work.block[role].weight).to(at::kDouble);
  at::Tensor wanted = original;
  if (cross) {
    wanted = linalg::corrected_target(now, linalg::dense_target(original, *cross), statistics.gram,
                                      config_.damping);
    if (!wanted.defined()) {
      wanted = original;
      record_event(work, layer_name(work.index, role), "refit",
                   "X X^T is not positive definite even when damped; corrected what the weight "
                   "lost instead",
                   /*fallback=*/true);
    }
  }
  const at::Tensor lost = wanted - now;
  const OutputPca pca = output_pca(lost, statistics.gram);
  const Factors factors = truncate(lost, pca, config_.rank);
  LowRankWeight correction = stored(factors, lost, statistics.gram, storage_);
  const double size = output_energy(wanted, statistics.gram);
  const at::Tensor left_over = lost - dense(Weight(correction)).to(at::kDouble);
  const double error = size > 0 ? output_energy(left_over, statistics.gram) / size : 0.0;
  const double before = size > 0 ? pca.values.sum().item<double>() / size : 0.0;
  record_changed(work, role, *corrected(work.block[role].weight, std::move(correction)),
                 "correction of rank " + std::to_string(factors.left.size(1)), error, before,
                 since);
}

}  // namespace attar
