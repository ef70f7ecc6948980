#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "compress/calibrate/block_sensitivity.h"
#include "compress/calibrate/layer_walk.h"
#include "lowrank/passes.h"
#include "lowrank/refit.h"
#include "lowrank/spectra.h"

namespace attar {

// Layers of up to `span` blocks that read inputs of one site.
struct SharePass::Shared {
  std::int64_t first_block = 0;
  Site site = Site::kAttentionInput;
  RankChoice choice;        // of the stacked weights
  std::int64_t layers = 0;  // that share it
  at::Tensor basis;         // [k, n] double, most important row first; then [rank, n] as stored
};

namespace {

// The stacked weights of one basis while their blocks go by.
struct Stack {
  at::Tensor gram;  // sum over the blocks
  std::vector<at::Tensor> weights;
};

bool reads(Role role, Site site) { return site_of(role) == site; }

}  // namespace

std::vector<PlannedLayer> SharePass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned = plan_layers(
      config_, config, kName, "basis shared by " + std::to_string(config_.span) + " blocks");
  for (PlannedLayer& layer : planned) {
    if (!layer.changes) continue;
    layer.parameters = config_.keep;
    const Site site = site_of(layer.role);
    const std::int64_t first = layer.block / config_.span * config_.span;
    const std::int64_t in = shape_of(config, layer.block, layer.role).in;
    if (in == 0) continue;  // a block without attention
    bool alike = config_.span == 1 || !config.widths_open ||
                 (site != Site::kOutputInput && site != Site::kDownInput);
    for (std::int64_t i = first; i < std::min(first + config_.span, config.layers); ++i) {
      const LinearShape other = shape_of(config, i, layer.role);
      alike = alike && (other.empty() || other.in == in);
    }
    require<DoesNotFit>(alike, layer_name(layer.block, layer.role),
                        "reads inputs of another width than its neighbours', so that they share no "
                        "basis; skip: [o, down]");
  }
  return planned;
}

std::int64_t SharePass::working_bytes(const ModelConfig& config) const {
  const std::int64_t n = widest_input(config), groups = (config.layers + 1) / config_.span + 1;
  const std::int64_t stacked = config_.span * (2 * config.ffn + 3 * config.q_width());
  return 8 * (5 * n * n + 2 * stacked * config.hidden +
              2 * groups * config.hidden * config.hidden) +
         BlockSensitivity::bytes(config, SpectraOptions().probe_sequences * 512);
}

// How much a unit of output energy of each layer counts, [blocks x roles]: by what its loss does to
// the predictions. Layers whose outputs are small (v beside q and k) would else lose all of them.
std::vector<double> SharePass::importances(ModelWork& work) const {
  SpectraOptions options;
  options.probe_align = config_.align;
  const auto wanted = [&](std::int64_t block, Role role) {
    return decide(config_, block, role).changes;
  };
  std::vector<double> found(static_cast<std::size_t>(work.input.config().layers) * kRoles.size());
  for (const LayerSpectrum& layer :
       measure_spectra(work.input, *work.calibration, options, wanted, work.context)) {
    const std::size_t first = static_cast<std::size_t>(layer.block) * kRoles.size();
    found[first + index_of(layer.role)] = layer.choice().importance;
  }
  return found;
}

std::vector<SharePass::Shared> SharePass::find_bases(ModelWork& work) const {
  std::vector<Shared> bases;
  const std::vector<double> importance = importances(work);
  BlockStream stream(work.input, *work.calibration, {});
  const std::int64_t blocks = work.input.config().layers;
  std::array<Stack, kSites.size()> stacks;
  for (std::int64_t index = 0; index < blocks; ++index) {
    work.context.check_stop();
    const Block block = work.input.block(index);
    check_finite(block, index);
    const auto statistics = stream.collect(block, work.context);
    const bool last = (index + 1) % config_.span == 0 || index + 1 == blocks;
    for (const Site site : kSites) {
      Stack& stack = stacks[index_of(site)];
      const std::size_t before = stack.weights.size();
      for (const Role role : roles_of(block)) {
        if (!reads(role, site) || !decide(config_, index, role).changes) continue;
        const std::size_t first = static_cast<std::size_t>(index) * kRoles.size();
        stack.weights.push_back(dense(block[role].weight).to(at::kDouble) *
                                std::sqrt(importance[first + index_of(role)]));
      }
      if (stack.weights.size() > before) {
        const at::Tensor& gram = statistics[index_of(site)]->gram;
        stack.gram = stack.gram.defined() ? stack.gram + gram : gram;
      }
      if (!last || stack.weights.empty()) continue;
      const at::Tensor whole = at::cat(stack.weights, 0);
      const OutputPca pca = output_pca(whole, stack.gram);
      Shared shared{index / config_.span * config_.span, site};
      shared.layers = static_cast<std::int64_t>(stack.weights.size());
      shared.basis = truncate(whole, pca, pca.values.size(0)).right;
      const auto* values = pca.values.const_data_ptr<double>();
      shared.choice = {whole.size(0), whole.size(1), {values, values + pca.values.numel()}};
      bases.push_back(std::move(shared));
      stack = {};
    }
    stream.advance(block);
    work.input.done_with_block(index);
  }
  return bases;
}

void SharePass::choose_ranks(ModelWork& work, std::vector<Shared>& bases) const {
  std::vector<RankChoice> choices;
  std::int64_t parameters = 0;
  for (const Shared& shared : bases) {
    choices.push_back(shared.choice);
    parameters += shared.choice.out * shared.choice.in;
  }
  const auto budget = static_cast<std::int64_t>(config_.keep * static_cast<double>(parameters));
  const RankPlan plan = fill_ranks(choices, budget, config_.align);
  const at::ScalarType type = FactorConfig{.type = config_.type}.storage(kName).type;
  for (std::size_t i = 0; i < bases.size(); ++i) {
    at::Tensor& basis = bases[i].basis;
    basis = plan.ranks[i] == 0
                ? at::Tensor()
                : basis.narrow(0, 0, std::min(plan.ranks[i], basis.size(0))).to(type);
  }
  work.report.events.push_back({"model", "ranks",
                                std::to_string(plan.parameters) + " of " +
                                    std::to_string(parameters) +
                                    " parameters stay, each basis counted once",
                                false});
}

void SharePass::run(ModelWork& work) const {
  std::vector<Shared> bases = find_bases(work);
  choose_ranks(work, bases);
  BlockStream stream(work.input, *work.calibration, {.dense_stream = true, .residual = false});
  for (std::int64_t index = 0; index < work.input.config().layers; ++index) {
    work.context.check_stop();
    const Block original = work.input.block(index);
    Block block = original;
    stream.sequential(
        block, original, work.context,
        [&](Site site, const linalg::GramStatistics& statistics, const linalg::CrossGram& cross) {
          for (const Role role : roles_of(block)) {
            if (!reads(role, site)) continue;
            const LayerDecision decision = decide(config_, index, role);
            if (!decision.changes) {
              work.report.skipped.push_back({layer_name(index, role), decision.rule});
              continue;
            }
            for (const Shared& shared : bases) {
              if (shared.site != site ||
                  shared.first_block != index / config_.span * config_.span) {
                continue;
              }
              cut_layer(work, shared, index, role, block, statistics.gram, cross.gram);
            }
          }
        });
    work.output.put_block(index, block);
    stream.advance(block, original);
    work.input.done_with_block(index);
  }
}

void SharePass::cut_layer(ModelWork& work, const Shared& shared, std::int64_t index, Role role,
                          Block& block, const at::Tensor& gram, const at::Tensor& cross) const {
  const auto since = std::chrono::steady_clock::now();
  const std::string layer = layer_name(index, role);
  if (!shared.basis.defined()) {
    work.report.skipped.push_back({layer, "stays dense: no rank below break-even pays"});
    return;
  }
  work.context.check_stop();
  const at::Tensor weight = dense(block[role].weight).to(at::kDouble);
  // Coefficients on the inputs as they are, then drawn from there towards the dense outputs.
  Factors factors{at::zeros({weight.size(0), shared.basis.size(0)}, at::kDouble),
                  shared.basis.to(at::kDouble)};
  factors = refit_left(factors, weight.mm(gram), gram, 1e-9);
  factors = refit_left(factors, weight.mm(cross), gram, config_.damping);
  LayerChange change;
  change.layer = layer;
  change.action = "basis of rank " + std::to_string(shared.basis.size(0)) + " shared by " +
                  std::to_string(shared.layers) + " layers";
  change.bytes_before = stored_bytes(block[role].weight);
  const LowRankWeight cut{factors.left.to(shared.basis.scalar_type()), shared.basis};
  const std::int64_t basis_bytes =
      shared.basis.numel() * static_cast<std::int64_t>(shared.basis.element_size());
  change.bytes_after = stored_bytes(Weight(cut)) - basis_bytes + basis_bytes / shared.layers;
  block[role].weight = cut;
  const double size = output_energy(weight, gram);
  const at::Tensor lost = weight - dense(block[role].weight).to(at::kDouble);
  change.error = size > 0 ? output_energy(lost, gram) / size : 0.0;
  change.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  work.context.progress(layer);
  work.report.changed.push_back(std::move(change));
}

}  // namespace attar
