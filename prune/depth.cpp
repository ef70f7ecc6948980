#include "prune/depth.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <numeric>
#include <optional>

#include "compress/calibrate/head_divergence.h"
#include "compress/core/block_runner.h"
#include "compress/linalg/cross_gram.h"
#include "compress/linalg/gram.h"
#include "compress/linalg/quadratic_loss.h"
#include "prune/structured_obs.h"

namespace attar {
namespace {

using Clock = std::chrono::steady_clock;

// What goes at a time; `align` neurons stay in place of an MLP.
struct Unit {
  enum class Kind { kBlock, kAttention, kMlp } kind;
  std::int64_t align;

  explicit Unit(const DepthConfig& config)
      : kind(config.unit == "block"       ? Kind::kBlock
             : config.unit == "attention" ? Kind::kAttention
                                          : Kind::kMlp),
        align(config.align) {}

  bool whole() const { return kind == Kind::kBlock; }
  bool mlp() const { return kind == Kind::kMlp; }
  std::string suffix() const { return whole() ? "" : mlp() ? ".mlp" : ".self_attn"; }

  bool in(const BlockWidths& widths) const {
    return whole() || (mlp() ? widths.ffn > align : widths.attends());
  }
  // Not of a whole block.
  BlockWidths without(const BlockWidths& widths) const {
    return mlp() ? BlockWidths{align, widths.heads, widths.kv_heads}
                 : BlockWidths{widths.ffn, 0, 0};
  }
  // What is left of a block.
  std::optional<Block> without(Block block) const {
    if (whole()) return std::nullopt;
    if (!mlp()) return without_attention(std::move(block));
    for (const Role role : {Role::kGate, Role::kUp}) {
      Linear& linear = block[role];
      linear.weight = DenseWeight{dense(linear.weight).narrow(0, 0, align).clone()};
      if (linear.bias.defined()) linear.bias = linear.bias.narrow(0, 0, align).clone();
    }
    Linear& down = block[Role::kDown];
    down.weight = DenseWeight{at::zeros({shape_of(down.weight).out, align}, at::kFloat)};
    if (down.bias.defined()) down.bias = at::zeros_like(down.bias);
    return block;
  }
};

// Tokens of windows as rows, the first of each left out: it is an attention sink, whose size says
// nothing about the others.
at::Tensor tokens_of(const at::Tensor& hidden) {
  return hidden.narrow(1, 1, hidden.size(1) - 1).flatten(0, 1);
}

// A model that loses units, and its activations on a few windows.
class Shrinking {
 public:
  Shrinking(ModelWork& work, const Unit& unit, const at::Tensor& windows)
      : work_(work),
        unit_(unit),
        config_(work.input.config()),
        rope_(rope_table(config_, windows.size(1))),
        kept_(static_cast<std::size_t>(config_.layers)) {
    std::iota(kept_.begin(), kept_.end(), 0);
    entering_.push_back(embed(work.input.embedding(), windows));
    follow(0);
  }

  std::int64_t depth() const { return static_cast<std::int64_t>(kept_.size()); }
  // What enters the block at a place; at depth(): what leaves the last.
  const at::Tensor& entering(std::int64_t place) const { return entering_[place]; }
  std::string name(std::int64_t place) const {
    return "model.layers." + std::to_string(kept_[static_cast<std::size_t>(place)]);
  }

  Block block(std::int64_t place) const {
    const std::int64_t index = kept_[static_cast<std::size_t>(place)];
    const auto found = changed_.find(index);
    return found == changed_.end() ? work_.input.block(index) : found->second;
  }

  // The places whose unit may go: not the last attention of all.
  std::vector<std::int64_t> candidates() const {
    std::vector<std::int64_t> places;
    std::int64_t attending = 0;
    for (std::int64_t place = 0; place < depth(); ++place) attending += widths(place).attends();
    for (std::int64_t place = 0; place < depth(); ++place) {
      const bool last = attending == 1 && widths(place).attends() && !unit_.mlp();
      if (unit_.in(widths(place)) && !last) places.push_back(place);
    }
    return places;
  }

  // block_influence of the unit at `place`.
  double influence(std::int64_t place) const {
    const at::Tensor &before = entering_[place], &after = entering_[place + 1];
    if (unit_.whole()) return block_influence(tokens_of(before), tokens_of(after));
    const BlockRunner runner(config_, block(place), rope_);
    at::Tensor between = before.clone();
    for (std::int64_t window = 0; window < between.size(0); ++window) {
      at::Tensor rows = between.narrow(0, window, 1);
      rows.copy_(runner.attended(rows));
    }
    return unit_.mlp() ? block_influence(tokens_of(between), tokens_of(after))
                       : block_influence(tokens_of(before), tokens_of(between));
  }

  // What leaves the last block without the unit at `place`.
  at::Tensor without(std::int64_t place) const {
    at::Tensor hidden = entering_[place].clone();
    if (const auto rest = unit_.without(block(place))) pass(*rest, hidden);
    for (std::int64_t later = place + 1; later < depth(); ++later) pass(block(later), hidden);
    return hidden;
  }

  void remove(std::int64_t place) {
    if (const auto rest = unit_.without(block(place))) return replace(place, *rest);
    kept_.erase(kept_.begin() + place);
    follow(place);
  }

  void replace(std::int64_t place, const Block& block) {
    changed_[kept_[static_cast<std::size_t>(place)]] = block;
    follow(place);
  }

  // Replaces where `better` finds it so, and returns that; else the place is as it was, the input's
  // own block no change.
  bool replace_if(std::int64_t place, const Block& block, const std::function<bool()>& better) {
    const std::map<std::int64_t, Block> before = changed_;
    replace(place, block);
    if (better()) return true;
    changed_ = before;
    follow(place);
    return false;
  }

  // Runs the block over [N, T, hidden] in place.
  void pass(const Block& block, at::Tensor& hidden) const {
    const BlockRunner runner(config_, block, rope_);
    for (std::int64_t window = 0; window < hidden.size(0); ++window) {
      work_.context.check_stop();
      runner.advance(hidden.narrow(0, window, 1));
    }
  }

  void write(Model& output) const {
    output.keep_blocks(kept_);
    for (std::int64_t place = 0; place < depth(); ++place) {
      if (changed_.contains(kept_[static_cast<std::size_t>(place)])) {
        output.put_block(place, block(place));
      }
    }
  }

 private:
  BlockWidths widths(std::int64_t place) const {
    const std::int64_t index = kept_[static_cast<std::size_t>(place)];
    const auto found = changed_.find(index);
    return found == changed_.end() ? config_.widths_of(index)
                                   : widths_of(found->second, config_.head_dim);
  }

  // Computes what enters the places after `place` again.
  void follow(std::int64_t place) {
    entering_.resize(static_cast<std::size_t>(place) + 1);
    for (std::int64_t next = place; next < depth(); ++next) {
      at::Tensor hidden = entering_.back().clone();
      pass(block(next), hidden);
      entering_.push_back(hidden);
    }
  }

  ModelWork& work_;
  const Unit unit_;
  const ModelConfig config_;
  RopeTable rope_;
  std::vector<std::int64_t> kept_;         // blocks of the input, in their order
  std::map<std::int64_t, Block> changed_;  // by block of the input
  std::vector<at::Tensor> entering_;       // [N, T, hidden] by place, one more than blocks
};

// What the unit of a block adds to `x` [1, T, hidden].
at::Tensor added_by(const Unit& unit, const BlockRunner& runner, const at::Tensor& x) {
  if (unit.whole()) return runner.forward(x) - x;
  const at::Tensor between = runner.attended(x).clone();
  return unit.mlp() ? runner.forward(x) - between : between - x;
}

struct Patch {
  Block block;
  double explained = 0;  // share of what the removed unit added
  std::vector<std::string> fallbacks;
};

// `before` with down so that it also gives, as well as a linear map of its neurons can, what the
// unit of `gone` added to the stream. `hidden` [N, T, hidden] enters `before`.
Patch fit_patch(const ModelWork& work, const Unit& unit, const Block& before, const Block& gone,
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
    const at::Tensor between = first.attended(rows);
    const at::Tensor gated = first.gated(first.mlp_input(between)).clone();
    const at::Tensor added = added_by(unit, second, first.add_mlp(between, gated));
    gram.add(gated.flatten(0, 1));
    cross.add(added.flatten(0, 1), gated.flatten(0, 1));
    added_size += linalg::total(added.square());
  }
  const linalg::GramStatistics statistics = gram.finish();
  const at::Tensor target = cross.finish().gram;
  Ridge fit = ridge(target, statistics.gram, damping, where);
  Patch patch{before, 0, std::move(fit.fallbacks)};
  const double removed = 2 * linalg::total(fit.weight * target) -
                         linalg::total(at::mm(fit.weight, statistics.gram) * fit.weight);
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

}  // namespace

double block_influence(const at::Tensor& before, const at::Tensor& after) {
  const at::Tensor x = before.to(at::kDouble), y = after.to(at::kDouble);
  const at::Tensor cosine =
      (x * y).sum(-1) /
      (at::linalg_vector_norm(x, 2, {-1}) * at::linalg_vector_norm(y, 2, {-1})).clamp_min(1e-300);
  return 1 - linalg::total(cosine) / static_cast<double>(cosine.numel());
}

std::vector<PlannedLayer> DepthPass::plan(const ModelConfig& config) const {
  const std::string some = "goes if its " + config_.unit + " is one of " +
                           std::to_string(config_.remove) + " chosen by " + config_.choose;
  const Unit unit(config_);
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      const bool patched = role == Role::kDown && config_.patch;
      const bool goes = unit.whole() || (index_of(role) >= index_of(Role::kGate)) == unit.mlp();
      planned.push_back(
          {block, role, patched, "prune.depth",
           (goes ? some : "stays") + (patched ? ", patched if the next one goes" : "")});
      planned.back().keeps_zeros = !patched;
    }
  }
  return planned;
}

// Which go is known later: here the last.
ModelConfig DepthPass::shape_after(const ModelConfig& config) const {
  const Unit unit(config_);
  std::vector<BlockWidths> widths;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    widths.push_back(config.widths_of(block));
  }
  const auto there = std::count_if(widths.begin(), widths.end(),
                                   [&](const BlockWidths& block) { return unit.in(block); });
  require<DoesNotFit>(config_.remove < there, kName, "cannot remove ", config_.remove, " of ",
                      there, " units (", config_.unit, "); something must stay");
  ModelConfig after = config;
  after.widths_open = config.widths_open || !unit.whole() || !config.uniform();
  if (unit.whole()) {  // those with attention in front: of them one stays
    std::stable_partition(widths.begin(), widths.end(),
                          [](const BlockWidths& block) { return block.attends(); });
    after.layers -= config_.remove;
    widths.resize(static_cast<std::size_t>(after.layers));
  } else {
    std::int64_t left = config_.remove;
    for (auto block = widths.rbegin(); left > 0; ++block) {
      if (!unit.in(*block)) continue;
      *block = unit.without(*block);
      --left;
    }
  }
  after.set_widths(std::move(widths));
  return after;
}

std::int64_t DepthPass::working_bytes(const ModelConfig& config) const {
  return 4 * 8 * config.ffn * config.ffn + 8 * config.hidden * config.ffn;
}

void DepthPass::run(ModelWork& work) const {
  const at::Tensor& ids = work.calibration->ids;
  const at::Tensor windows = ids.narrow(0, 0, std::min(config_.windows, ids.size(0)));
  const Unit unit(config_);
  Shrinking model(work, unit, windows);
  const HeadDivergence teacher(work.input, model.entering(model.depth()));
  for (std::int64_t step = 0; step < config_.remove; ++step) {
    const auto since = Clock::now();
    std::vector<std::int64_t> places = model.candidates();
    if (config_.choose == "last") places = {places.back()};
    std::map<std::int64_t, double> influence;
    for (const std::int64_t place : places) influence[place] = model.influence(place);
    if (config_.choose != "last") {
      std::stable_sort(places.begin(), places.end(),
                       [&](std::int64_t a, std::int64_t b) { return influence[a] < influence[b]; });
      const std::int64_t tried = config_.choose == "block_influence" ? 1 : config_.candidates;
      if (tried > 0 && tried < std::ssize(places)) places.resize(static_cast<std::size_t>(tried));
    }
    std::int64_t chosen = places.front();
    double least = teacher.mean(model.without(chosen), work.context);
    for (std::size_t k = 1; k < places.size(); ++k) {
      const double kl = teacher.mean(model.without(places[k]), work.context);
      if (kl >= least) continue;
      least = kl;
      chosen = places[k];
    }
    const Block gone = model.block(chosen);
    LayerChange change;
    change.layer = model.name(chosen) + unit.suffix();
    std::ostringstream action;
    action << "removed, block influence " << influence[chosen] << ", KL " << least;
    const auto rest = unit.without(gone);
    change.bytes_before = bytes_of(gone) - (rest ? bytes_of(*rest) : 0);
    change.baseline_error = change.error = least;
    model.remove(chosen);
    if (config_.patch && chosen > 0) {
      const std::int64_t place = chosen - 1;
      const std::string neighbour = model.name(place);
      const Block before = model.block(place);
      at::Tensor hidden = embed(work.input.embedding(), ids);
      for (std::int64_t p = 0; p < place; ++p) model.pass(model.block(p), hidden);
      const Patch patch = fit_patch(work, unit, before, gone, hidden, config_.damping, neighbour);
      for (const std::string& text : patch.fallbacks) {
        require<NumericRefusal>(!work.context.strict, neighbour, text,
                                "; the recipe is strict, so this is refused");
        work.report.events.push_back({neighbour, "damping", text, true});
      }
      double kl = least;
      const bool kept = model.replace_if(place, patch.block, [&] {
        kl = teacher.mean(model.entering(model.depth()), work.context);
        return kl < least;
      });
      if (kept) {
        change.error = kl;
        action << ", KL " << kl << " after a patch of " << neighbour << " that explains "
               << patch.explained << " of it";
      } else {
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
  model.write(work.output);
}

}  // namespace attar
