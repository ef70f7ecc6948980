#include <ATen/TensorOperators.h>

#include <chrono>

#include "compress/calibrate/block_sensitivity.h"
#include "compress/calibrate/layer_walk.h"
#include "compress/linalg/corrected_target.h"
#include "compress/linalg/quadratic_loss.h"
#include "lowrank/passes.h"
#include "lowrank/refit.h"

namespace attar {
namespace {

std::string percent(double share) {
  const auto tenths = static_cast<std::int64_t>(share * 1000 + 0.5);
  return std::to_string(tenths / 10) + (tenths % 10 ? "." + std::to_string(tenths % 10) : "") +
         " %";
}

// What is known about a layer's inputs when it is cut.
struct Inputs {
  at::Tensor gram;    // X X^T of what the layer sees now; undefined: nothing is known
  at::Tensor target;  // of linalg::dense_target; undefined: no refit
};

struct Cut {
  Factors factors;
  at::Tensor aimed_at;  // the dense weight that the factors stand for
  bool refit_failed = false;
};

// The weight that gives the dense outputs from the inputs as they are; falls back to the weight.
at::Tensor aim(const at::Tensor& weight, const Inputs& inputs, double damping, bool& failed) {
  const at::Tensor aimed = linalg::corrected_target(weight, inputs.target, inputs.gram, damping);
  failed = !aimed.defined();
  return failed ? weight : aimed;
}

Cut cut_weight(const at::Tensor& weight, const Inputs& inputs, std::int64_t rank,
               const SvdConfig& config) {
  Cut cut{{}, weight};
  if (!inputs.gram.defined()) {
    cut.factors = plain_svd(weight, rank);
    return cut;
  }
  if (inputs.target.defined() && config.refit == "full") {
    cut.aimed_at = aim(weight, inputs, config.damping, cut.refit_failed);
  }
  cut.factors = truncate(cut.aimed_at, output_pca(cut.aimed_at, inputs.gram), rank);
  if (inputs.target.defined() && config.refit == "left") {
    cut.factors = refit_left(cut.factors, inputs.target, inputs.gram, config.damping);
  }
  return cut;
}

// |W x - W' x|^2 / |W x|^2 on the inputs as they are, or of the weights alone.
double relative_error(const at::Tensor& weight, const at::Tensor& values, const at::Tensor& gram) {
  if (gram.defined()) {
    const double size = output_energy(weight, gram);
    return size > 0 ? output_energy(weight - values, gram) / size : 0.0;
  }
  const double size = linalg::total(weight.square());
  return size > 0 ? linalg::total((weight - values).square()) / size : 0.0;
}

Weight in_type_of(const Weight& before, const at::Tensor& values) {
  const auto* plain = std::get_if<DenseWeight>(&before);
  return DenseWeight{values.to(plain ? plain->values.scalar_type() : at::kFloat)};
}

}  // namespace

SvdPass::SvdPass(SvdConfig config) : config_(std::move(config)), storage_(config_.storage(kName)) {
  require<UsageError>(!plain() || config_.bits == 0, kName,
                      "method: plain knows no inputs to round factors by; leave bits out");
  if (plain() || config_.refit == "none") {
    refuse_idle(config_, {"follow", "damping"}, kName,
                "nothing is refitted: leave it out, or set method: outputs and a refit");
  }
}

Needs SvdPass::needs() const {
  const bool reads = !plain() || (config_.rank == 0 && config_.allocation == "water_filling");
  return {.calibration = reads,
          .dense_stream = !plain() && config_.refit != "none",
          .statistics = reads};
}

std::vector<PlannedLayer> SvdPass::plan(const ModelConfig& config) const {
  const bool fixed = config_.rank > 0;
  const bool filled = !fixed && config_.allocation == "water_filling";
  const std::string method = plain() ? "plain svd" : "svd";
  std::vector<PlannedLayer> planned =
      plan_layers(config_, config, kName,
                  method + (filled ? ", ranks by water-filling to " + percent(config_.keep) : ""));
  std::vector<RankChoice> choices;
  std::int64_t parameters = 0;
  for (PlannedLayer& layer : planned) {
    if (!layer.changes) continue;
    const LinearShape shape = shape_of(config, layer.block, layer.role);
    if (filled || shape.empty()) {
      layer.parameters = config_.keep;
      if (!shape.empty()) choices.push_back({shape.out, shape.in, {}});
      parameters += shape.out * shape.in;
      continue;
    }
    const std::int64_t rank =
        fixed ? config_.rank : uniform_rank(shape.out, shape.in, config_.keep, config_.align);
    require<DoesNotFit>(!fixed || rank * (shape.out + shape.in) < shape.out * shape.in, kName,
                        "rank ", rank, " makes layer '", layer_name(layer.block, layer.role), "' (",
                        shape.out, " x ", shape.in, ") larger; break-even is ",
                        shape.out * shape.in / (shape.out + shape.in),
                        "; lower rank, or leave the layer out (`skip:`)");
    if (rank == 0) {
      layer.changes = false;
      layer.action = "unchanged: no rank of a multiple of " + std::to_string(config_.align) +
                     " makes it smaller";
      continue;
    }
    layer.action = method + " of rank " + std::to_string(rank);
    layer.parameters = parameters_of(shape, rank, storage_);
  }
  if (!config.widths_open) require_smallest_ranks(choices, budget_of(parameters), config_.align);
  return planned;
}

std::int64_t SvdPass::working_bytes(const ModelConfig& config) const {
  const std::int64_t n = widest_input(config);
  const SpectraOptions probes;
  const bool predictions = config_.rank == 0 && config_.allocation == "water_filling" &&
                           config_.sensitivity == "predictions";
  return 8 * (5 * n * n + 3 * n * config.hidden) +  // Grams, a damped one, its inverse, a root
         (predictions ? BlockSensitivity::bytes(config, probes.probe_sequences * 512) : 0);
}

SvdPass::Ranks SvdPass::choose_ranks(ModelWork& work) const {
  const ModelConfig& config = work.input.config();
  Ranks ranks;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      const LinearShape shape = shape_of(config, block, role);
      ranks.push_back(!decide(config_, block, role).changes ? -1
                      : config_.rank > 0
                          ? config_.rank
                          : uniform_rank(shape.out, shape.in, config_.keep, config_.align));
    }
  }
  if (config_.rank > 0 || config_.allocation == "uniform") return ranks;

  const auto at = [](std::int64_t block, Role role) {
    return static_cast<std::size_t>(block) * kRoles.size() + index_of(role);
  };
  const std::vector<LayerSpectrum> spectra = measure_spectra(
      work.input, *work.calibration,
      {.measure_harm = config_.sensitivity != "energy",
       .predictions = config_.sensitivity == "predictions",
       .probe_keep = config_.keep,
       .probe_align = config_.align},
      [&](std::int64_t block, Role role) { return ranks[at(block, role)] >= 0; }, work.context);
  std::vector<RankChoice> choices;
  std::int64_t parameters = 0;
  for (const LayerSpectrum& spectrum : spectra) {
    choices.push_back(spectrum.choice());
    parameters += spectrum.out * spectrum.in;
  }
  const RankPlan plan = fill_ranks(choices, budget_of(parameters), config_.align);
  for (std::size_t i = 0; i < spectra.size(); ++i) {
    ranks[at(spectra[i].block, spectra[i].role)] = plan.ranks[i];
  }
  work.report.events.push_back({"model", "ranks",
                                std::to_string(plan.parameters) + " of " +
                                    std::to_string(parameters) + " parameters stay (budget " +
                                    percent(config_.keep) + "); water-filling expects a loss of " +
                                    std::to_string(plan.loss),
                                false});
  return ranks;
}

void SvdPass::run(ModelWork& work) const {
  const Ranks ranks = choose_ranks(work);
  std::optional<BlockStream> stream;
  if (!plain()) {
    stream.emplace(
        work.input, *work.calibration,
        StreamOptions{.dense_stream = config_.refit != "none", .residual = config_.follow});
  }
  for (std::int64_t index = 0; index < work.input.config().layers; ++index) {
    work.context.check_stop();
    const Block original = work.input.block(index);
    Block block = original;
    check_finite(block, index);
    cut_block(work, stream ? &*stream : nullptr, ranks, index, original, block);
    work.output.put_block(index, block);
    if (stream) stream->advance(block, original);
    work.input.done_with_block(index);
  }
}

void SvdPass::cut_block(ModelWork& work, BlockStream* stream, const Ranks& ranks,
                        std::int64_t index, const Block& original, Block& block) const {
  const auto cut_site = [&](Site site, const at::Tensor& gram, const linalg::CrossGram* cross) {
    for (const Role role : roles_of(block)) {
      if (site_of(role) != site) continue;
      const std::int64_t rank =
          ranks[static_cast<std::size_t>(index) * kRoles.size() + index_of(role)];
      const std::string layer = layer_name(index, role);
      if (rank < 0) {
        work.report.skipped.push_back({layer, decide(config_, index, role).rule});
      } else if (rank == 0 && !(cross && config_.refit == "full")) {
        work.report.skipped.push_back({layer, "stays dense: no rank below break-even pays"});
      } else {
        work.context.check_stop();
        cut_layer(work, layer, rank, gram, cross, block[role].weight);
        work.context.progress(layer);
      }
    }
  };
  if (stream == nullptr) {
    for (const Site site : sites_of(block)) cut_site(site, {}, nullptr);
  } else if (stream->has_dense()) {
    stream->sequential(
        block, original, work.context,
        [&](Site site, const linalg::GramStatistics& statistics, const linalg::CrossGram& cross) {
          cut_site(site, statistics.gram, &cross);
        });
  } else {
    stream->sequential(block, work.context,
                       [&](Site site, const linalg::GramStatistics& statistics) {
                         cut_site(site, statistics.gram, nullptr);
                       });
  }
}

void SvdPass::cut_layer(ModelWork& work, const std::string& layer, std::int64_t rank,
                        const at::Tensor& gram, const linalg::CrossGram* cross,
                        Weight& weight) const {
  const auto since = std::chrono::steady_clock::now();
  const at::Tensor before = dense(weight).to(at::kDouble);
  const Inputs inputs{gram, cross ? linalg::dense_target(before, *cross) : at::Tensor()};
  LayerChange change;
  change.layer = layer;
  change.bytes_before = stored_bytes(weight);
  bool failed = false;
  if (rank == 0) {
    weight = in_type_of(weight, aim(before, inputs, config_.damping, failed));
    change.action = "stays dense, refitted to the dense model's outputs";
  } else {
    const Cut cut = cut_weight(before, inputs, rank, config_);
    weight = stored(cut.factors, cut.aimed_at, gram, storage_);
    change.action = (plain() ? "plain svd of rank " : "svd of rank ") +
                    std::to_string(cut.factors.left.size(1));
    failed = cut.refit_failed;
  }
  if (failed) {
    constexpr const char* kText = "X X^T is not positive definite even when damped; not refitted";
    require<NumericRefusal>(!work.context.strict, layer, kText,
                            "; the recipe is strict, so this is refused");
    work.report.events.push_back({layer, "refit", kText, true});
  }
  change.bytes_after = stored_bytes(weight);
  change.error = relative_error(before, dense(weight).to(at::kDouble), gram);
  change.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  work.report.changed.push_back(std::move(change));
}

}  // namespace attar
