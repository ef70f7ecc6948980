#include "lowrank/spectra.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "compress/calibrate/block_lane.h"
#include "compress/calibrate/block_sensitivity.h"
#include "compress/core/errors.h"
#include "compress/linalg/gram.h"
#include "compress/linalg/quadratic_loss.h"
#include "lowrank/output_pca.h"

namespace attar {
namespace {

constexpr std::int64_t kBatch = 4;  // sequences a forward; changes no bit

at::Tensor gram_at(BlockLane& lane, Site site, std::int64_t columns, const RunContext& context) {
  linalg::GramAccumulator gram(columns);
  lane.reach(site, context);
  lane.for_batches(context, [&](std::int64_t first, std::int64_t count) {
    gram.add(lane.inputs(site, first, count).flatten(0, 1));
  });
  lane.visited(site);
  return gram.finish().gram;
}

// |changed - output|^2 / |output|^2 of each token, on average.
double relative_change(const at::Tensor& output, const at::Tensor& changed) {
  const at::Tensor lost = (changed - output).square().sum(-1, false, at::kDouble);
  const at::Tensor size = output.square().sum(-1, false, at::kDouble);
  return linalg::total(lost / size.clamp_min(1e-30)) / static_cast<double>(lost.numel());
}

// A cut to try: the layer's factors multiplied out, and what they drop.
struct Probe {
  Role role;
  at::Tensor values;
  double dropped = 0;
};

std::optional<Probe> probe_of(const LayerSpectrum& spectrum, const at::Tensor& weight,
                              const OutputPca& pca, const SpectraOptions& options) {
  std::int64_t rank =
      uniform_rank(spectrum.out, spectrum.in, options.probe_keep, options.probe_align);
  if (rank == 0) rank = std::min(spectrum.out, spectrum.in) / 2;
  const Factors factors = truncate(weight, pca, rank);
  double dropped = 0;
  for (std::size_t i = static_cast<std::size_t>(rank); i < spectrum.values.size(); ++i) {
    dropped += spectrum.values[i];
  }
  if (dropped <= 0) return std::nullopt;
  return Probe{spectrum.role, factors.left.mm(factors.right).to(at::kFloat), dropped};
}

// What the predictions lose for each unit of relative change of the block's outputs.
double nats_of(const BlockSensitivity& sensitivity, const std::vector<Probe>& probes,
               const Block& block, const at::Tensor& output, const at::Tensor& x,
               BlockRunner& runner) {
  Block cut = block;
  for (const Probe& probe : probes) cut[probe.role].weight = DenseWeight{probe.values};
  runner.take(cut);
  const double change = relative_change(output, runner.forward(x));
  runner.take(block);
  return change > 0 ? sensitivity.divergence_with(cut) / change : 0;
}

}  // namespace

RankChoice LayerSpectrum::choice() const {
  return {out, in, values, harm.value_or(energy > 0 ? 1 / energy : 0)};
}

std::vector<LayerSpectrum> measure_spectra(
    const Model& model, const CalibrationTokens& tokens, const SpectraOptions& options,
    const std::function<bool(std::int64_t block, Role role)>& wanted, const RunContext& context) {
  const ModelConfig& config = model.config();
  const RopeTable rope = rope_table(config, tokens.ids.size(1));
  BlockLane lane(config, rope, embed(model.embedding(), tokens.ids), kBatch);
  const std::int64_t probed = std::min(options.probe_sequences, lane.sequences());
  std::optional<BlockSensitivity> sensitivity;
  if (options.measure_harm && options.predictions) {
    sensitivity.emplace(model, tokens.ids.narrow(0, 0, probed), context);
  }
  std::vector<LayerSpectrum> spectra;
  for (std::int64_t index = 0; index < config.layers; ++index) {
    context.check_stop();
    const Block block = model.block(index);
    check_finite(block, index);
    lane.enter(block, context);
    std::vector<Probe> probes;
    const std::size_t first = spectra.size();
    for (const Site site : sites_of(block)) {
      at::Tensor gram;
      for (const Role role : roles_of(block)) {
        if (site_of(role) != site || !wanted(index, role)) continue;
        const at::Tensor weight = dense(block[role].weight).to(at::kDouble);
        if (!gram.defined()) gram = gram_at(lane, site, weight.size(1), context);
        const OutputPca pca = output_pca(weight, gram);
        LayerSpectrum spectrum{index, role, weight.size(0), weight.size(1)};
        const auto* values = pca.values.const_data_ptr<double>();
        spectrum.values.assign(values, values + pca.values.numel());
        spectrum.energy = pca.values.sum().item<double>();
        if (options.measure_harm) {
          if (auto probe = probe_of(spectrum, weight, pca, options)) {
            probes.push_back(*std::move(probe));
          }
        }
        spectra.push_back(std::move(spectrum));
        context.progress(layer_name(index, role));
      }
    }
    if (!probes.empty()) {
      const at::Tensor x = lane.activations(0, probed);
      BlockRunner runner(config, block, rope);
      const at::Tensor output = runner.forward(x);
      const double nats = sensitivity ? nats_of(*sensitivity, probes, block, output, x, runner) : 1;
      Block changed = block;
      for (const Probe& probe : probes) {
        context.check_stop();
        changed[probe.role].weight = DenseWeight{probe.values};
        runner.prepare(changed, site_of(probe.role));
        const double harm = nats * relative_change(output, runner.forward(x)) / probe.dropped;
        for (std::size_t i = first; i < spectra.size(); ++i) {
          if (spectra[i].role == probe.role) spectra[i].harm = harm;
        }
        changed[probe.role].weight = block[probe.role].weight;
        runner.prepare(changed, site_of(probe.role));
      }
    }
    lane.leave();
    lane.advance(block);
    if (sensitivity) sensitivity->advance();
    model.done_with_block(index);
  }
  return spectra;
}

}  // namespace attar
