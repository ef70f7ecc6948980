#include "prune/depth.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>

#include <chrono>
#include <map>
#include <numeric>

#include "compress/calibrate/head_divergence.h"
#include "compress/core/block_runner.h"
#include "compress/linalg/cross_gram.h"
#include "compress/linalg/gram.h"
#include "prune/structured_obs.h"

namespace attar {
namespace {

using Clock = std::chrono::steady_clock;

// A model that loses blocks, and its activations on a few windows.
class Shrinking {
 public:
  Shrinking(ModelWork& work, const at::Tensor& windows)
      : work_(work),
        config_(work.input.config()),
        rope_(rope_table(config_, windows.size(1))),
        kept_(static_cast<std::size_t>(config_.layers)) {
    std::iota(kept_.begin(), kept_.end(), 0);
    entering_.push_back(embed(work.input.embedding(), windows));
    follow(0);
  }

  std::int64_t depth() const { return static_cast<std::int64_t>(kept_.size()); }
  const std::vector<std::int64_t>& kept() const { return kept_; }
  const std::map<std::int64_t, Block>& patched() const { return patched_; }
  // What enters the block at a place; at depth(): what leaves the last.
  const at::Tensor& entering(std::int64_t place) const { return entering_[place]; }

  Block block(std::int64_t place) const {
    const std::int64_t index = kept_[static_cast<std::size_t>(place)];
    const auto found = patched_.find(index);
    return found == patched_.end() ? work_.input.block(index) : found->second;
  }

  // What leaves the last block without the one at `place`.
  at::Tensor without(std::int64_t place) const {
    at::Tensor hidden = entering_[place].clone();
    for (std::int64_t later = place + 1; later < depth(); ++later) pass(later, hidden);
    return hidden;
  }

  void remove(std::int64_t place) {
    kept_.erase(kept_.begin() + place);
    follow(place);
  }

  void replace(std::int64_t place, const Block& block) {
    patched_[kept_[static_cast<std::size_t>(place)]] = block;
    follow(place);
  }
  // Takes a patch back.
  void restore(std::int64_t place, const Block& block, bool was_patched) {
    if (was_patched) {
      patched_[kept_[static_cast<std::size_t>(place)]] = block;
    } else {
      patched_.erase(kept_[static_cast<std::size_t>(place)]);
    }
    follow(place);
  }
  bool is_patched(std::int64_t place) const {
    return patched_.contains(kept_[static_cast<std::size_t>(place)]);
  }

  // Runs the block at `place` over [N, T, hidden] in place.
  void pass(std::int64_t place, at::Tensor& hidden) const {
    const BlockRunner runner(config_, block(place), rope_);
    for (std::int64_t window = 0; window < hidden.size(0); ++window) {
      work_.context.check_stop();
      at::Tensor rows = hidden.narrow(0, window, 1);
      rows.copy_(runner.forward(rows));
    }
  }

 private:
  // Computes what enters the places after `place` again.
  void follow(std::int64_t place) {
    entering_.resize(static_cast<std::size_t>(place) + 1);
    for (std::int64_t next = place; next < depth(); ++next) {
      at::Tensor hidden = entering_.back().clone();
      pass(next, hidden);
      entering_.push_back(hidden);
    }
  }

  ModelWork& work_;
  const ModelConfig config_;
  RopeTable rope_;
  std::vector<std::int64_t> kept_;         // blocks of the input, in their order
  std::map<std::int64_t, Block> patched_;  // by block of the input
  std::vector<at::Tensor> entering_;       // [N, T, hidden] by place, one more than blocks
};

// Tokens of windows as rows, the first of each left out: it is an attention sink, whose size says
// nothing about the others.
at::Tensor tokens_of(const at::Tensor& hidden) {
  return hidden.narrow(1, 1, hidden.size(1) - 1).flatten(0, 1);
}

std::vector<double> influences(const Shrinking& model) {
  std::vector<double> found;
  for (std::int64_t place = 0; place < model.depth(); ++place) {
    found.push_back(
        block_influence(tokens_of(model.entering(place)), tokens_of(model.entering(place + 1))));
  }
  return found;
}

struct Patch {
  Block block;
  double explained = 0;  // share of what the removed block added
  std::vector<std::string> fallbacks;
};

// `before` with down so that it also gives, as well as a linear map of its neurons can, what `gone`
// added to the stream. `hidden` [N, T, hidden] enters `before`.
Patch fit_patch(const ModelWork& work, const Block& before, const Block& gone,
                const at::Tensor& hidden, double damping, std::string_view where) {
  const ModelConfig& config = work.input.config();
  const RopeTable rope = rope_table(config, hidden.size(1));
  const BlockRunner first(config, before, rope), second(config, gone, rope);
  const auto [outputs, neurons] = shape_of(before[Role::kDown].weight);
  linalg::GramAccumulator gram(neurons);
  linalg::CrossAccumulator cross(outputs, neurons);
  double added_size = 0;
  for (std::int64_t sequence = 0; sequence < hidden.size(0); ++sequence) {
    work.context.check_stop();
    const at::Tensor rows = hidden.narrow(0, sequence, 1);
    const at::Tensor mixed = first.attention(first.attention_input(rows), nullptr);
    const at::Tensor between = first.add_attention(rows, mixed);
    const at::Tensor gated = first.gated(first.mlp_input(between)).clone();
    const at::Tensor out = first.add_mlp(between, gated).clone();
    const at::Tensor added = second.forward(out) - out;
    gram.add(gated.flatten(0, 1));
    cross.add(added.flatten(0, 1), gated.flatten(0, 1));
    added_size += added.square().sum(at::kDouble).item<double>();
  }
  const linalg::GramStatistics statistics = gram.finish();
  const at::Tensor target = cross.finish().gram;
  Ridge fit = ridge(target, statistics.gram, damping, where);
  Patch patch{before, 0, std::move(fit.fallbacks)};
  const double removed = 2 * (fit.weight * target).sum().item<double>() -
                         (at::mm(fit.weight, statistics.gram) * fit.weight).sum().item<double>();
  patch.explained = added_size > 0 ? removed / added_size : 0;
  patch.block[Role::kDown].weight =
      DenseWeight{(dense(before[Role::kDown].weight).to(at::kDouble) + fit.weight).to(at::kFloat)};
  return patch;
}

std::int64_t bytes_of(const Block& block) {
  std::int64_t bytes = 0;
  for (const Role role : kRoles) bytes += stored_bytes(block[role].weight);
  return bytes;
}

std::string name_of(std::int64_t index) { return "model.layers." + std::to_string(index); }

}  // namespace

double block_influence(const at::Tensor& before, const at::Tensor& after) {
  const at::Tensor x = before.to(at::kDouble), y = after.to(at::kDouble);
  const at::Tensor cosine =
      (x * y).sum(-1) /
      (at::linalg_vector_norm(x, 2, {-1}) * at::linalg_vector_norm(y, 2, {-1})).clamp_min(1e-300);
  return 1 - cosine.mean().item<double>();
}

std::vector<PlannedLayer> DepthPass::plan(const ModelConfig& config) const {
  const std::string some = "goes if its block is one of " + std::to_string(config_.remove) +
                           " chosen by " + config_.choose;
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      const bool patched = role == Role::kDown && config_.patch;
      planned.push_back({block, role, patched, "prune.depth",
                         patched ? some + ", patched if the next one is" : some});
      planned.back().keeps_zeros = !patched;
    }
  }
  return planned;
}

ModelConfig DepthPass::shape_after(const ModelConfig& config) const {
  require<DoesNotFit>(config_.remove < config.layers, kName, "cannot remove ", config_.remove,
                      " of ", config.layers, " blocks; something must stay");
  ModelConfig after = config;
  after.layers -= config_.remove;
  if (config.uniform()) return after;
  after.widths_open = true;  // which of them stay is known later
  after.set_widths({config.block_widths.begin(), config.block_widths.begin() + after.layers});
  return after;
}

std::int64_t DepthPass::working_bytes(const ModelConfig& config) const {
  return 4 * 8 * config.ffn * config.ffn + 8 * config.hidden * config.ffn;
}

void DepthPass::run(ModelWork& work) const {
  const at::Tensor& ids = work.calibration->ids;
  const at::Tensor windows = ids.narrow(0, 0, std::min(config_.windows, ids.size(0)));
  Shrinking model(work, windows);
  const HeadDivergence teacher(work.input, model.entering(model.depth()));
  for (std::int64_t step = 0; step < config_.remove; ++step) {
    const auto since = Clock::now();
    const std::vector<double> influence = influences(model);
    std::vector<std::int64_t> places(influence.size());
    std::iota(places.begin(), places.end(), 0);
    if (config_.choose == "last") {
      places = {model.depth() - 1};
    } else {
      std::stable_sort(places.begin(), places.end(), [&](std::int64_t a, std::int64_t b) {
        return influence[static_cast<std::size_t>(a)] < influence[static_cast<std::size_t>(b)];
      });
      const std::int64_t tried = config_.choose == "block_influence" ? 1 : config_.candidates;
      if (tried > 0 && tried < model.depth()) places.resize(static_cast<std::size_t>(tried));
    }
    std::int64_t chosen = places.front();
    double least = teacher.mean(model.without(chosen), work.context);
    for (std::size_t k = 1; k < places.size(); ++k) {
      const double kl = teacher.mean(model.without(places[k]), work.context);
      if (kl >= least) continue;
      least = kl;
      chosen = places[k];
    }
    const std::int64_t index = model.kept()[static_cast<std::size_t>(chosen)];
    const Block gone = model.block(chosen);
    LayerChange change;
    change.layer = name_of(index);
    std::ostringstream action;
    action << "removed, block influence " << influence[static_cast<std::size_t>(chosen)] << ", KL "
           << least;
    change.bytes_before = bytes_of(gone);
    change.baseline_error = change.error = least;
    model.remove(chosen);
    if (config_.patch && chosen > 0) {
      const std::int64_t place = chosen - 1;
      const std::string neighbour = name_of(model.kept()[static_cast<std::size_t>(place)]);
      const bool was_patched = model.is_patched(place);
      const Block before = model.block(place);
      at::Tensor hidden = embed(work.input.embedding(), ids);
      for (std::int64_t p = 0; p < place; ++p) model.pass(p, hidden);
      const Patch patch = fit_patch(work, before, gone, hidden, config_.damping, neighbour);
      for (const std::string& text : patch.fallbacks) {
        require<NumericRefusal>(!work.context.strict, neighbour, text,
                                "; the recipe is strict, so this is refused");
        work.report.events.push_back({neighbour, "damping", text, true});
      }
      model.replace(place, patch.block);
      const double kl = teacher.mean(model.entering(model.depth()), work.context);
      if (kl < least) {
        change.error = kl;
        action << ", KL " << kl << " after a patch of " << neighbour << " that explains "
               << patch.explained << " of it";
      } else {
        model.restore(place, before, was_patched);
        std::ostringstream text;
        text << "a patch in place of " << change.layer << " was left out: KL " << kl << " with it, "
             << least << " without";
        work.report.events.push_back({neighbour, "patch", text.str(), false});
      }
    }
    change.action = action.str();
    change.seconds = std::chrono::duration<double>(Clock::now() - since).count();
    work.context.progress(change.layer);
    work.report.changed.push_back(std::move(change));
  }
  work.output.keep_blocks(model.kept());
  for (std::int64_t place = 0; place < model.depth(); ++place) {
    if (model.is_patched(place)) work.output.put_block(place, model.block(place));
  }
}

}  // namespace attar
