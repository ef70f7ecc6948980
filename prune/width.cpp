#include "prune/width.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros_like.h>

#include <chrono>
#include <cmath>
#include <numeric>

#include "compress/calibrate/block_sensitivity.h"
#include "compress/linalg/quadratic_loss.h"
#include "prune/channels.h"
#include "prune/slicing.h"

namespace attar {
namespace {

using Clock = std::chrono::steady_clock;

at::Tensor all_of(std::int64_t count) { return at::arange(count, at::kLong); }

// A share of `all` in multiples of `align` (the nearest, half upwards), at least one of them.
std::int64_t aligned(double share, std::int64_t all, std::int64_t align) {
  if (share >= 1) return all;
  const double steps = share * static_cast<double>(all) / static_cast<double>(align);
  const auto rounded = static_cast<std::int64_t>(std::floor(steps + 0.5 + 1e-9));
  return std::min(all, std::max<std::int64_t>(1, rounded) * align);
}

// One block on its way to fewer inputs.
struct Surgery {
  ModelWork& work;
  std::int64_t index;
  Block& block;           // as cut so far
  const Block& original;  // of the model before the pass
  at::Tensor channels;    // [hidden'] int64: what stays of the stream
  bool channels_cut;
  double damping;

  void note(const std::string& layer, const std::vector<std::string>& fallbacks) const {
    for (const std::string& text : fallbacks) {
      require<NumericRefusal>(!work.context.strict, layer, text,
                              "; the recipe is strict, so this is refused");
      work.report.events.push_back({layer, "damping", text, true});
    }
  }

  // The layer's rows that stay, of the dense weight.
  at::Tensor dense_rows(Role role) const {
    const at::Tensor weight = dense(original[role].weight);
    const bool writes = role == Role::kOutput || role == Role::kDown;
    return writes && channels_cut ? at::index_select(weight, 0, channels) : weight;
  }

  // Refits a layer to the inputs `kept`, towards its dense output.
  void refit(Role role, const linalg::GramStatistics& statistics, const linalg::CrossGram& cross,
             const at::Tensor& kept, const at::Tensor& same_as, const std::string& action,
             Clock::time_point since) const {
    const std::string layer = layer_name(index, role);
    const at::Tensor weight = dense_rows(role);
    const Refit fitted = refit_columns(weight, {}, cross.gram, statistics.gram, kept, same_as,
                                       damping, layer, cross.residual);
    note(layer, fitted.fallbacks);
    record(role, DenseWeight{fitted.weight}, statistics, kept, action, since);
  }

  // Puts the changed weight into the block. The error is that of the cut alone, under the inputs
  // that reached the layer before it; the baseline keeps the weights as they were.
  void record(Role role, Weight after, const linalg::GramStatistics& statistics,
              const at::Tensor& kept, const std::string& action, Clock::time_point since) const {
    LayerChange change;
    change.layer = layer_name(index, role);
    change.action = action;
    change.bytes_before = stored_bytes(original[role].weight);
    const at::Tensor before = dense(block[role].weight);
    if (before.size(1) == statistics.gram.size(0) && kept.size(0) < before.size(1)) {
      at::Tensor plain = at::zeros_like(before), fitted = at::zeros_like(before);
      plain.index_copy_(1, kept, at::index_select(before, 1, kept));
      fitted.index_copy_(1, kept, dense(after));
      const double energy = linalg::hessian_loss(at::zeros_like(before), before, statistics.gram);
      if (energy > 0) {
        change.error = linalg::hessian_loss(before, fitted, statistics.gram) / energy;
        change.baseline_error = linalg::hessian_loss(before, plain, statistics.gram) / energy;
      }
    }
    block[role].weight = std::move(after);
    change.bytes_after = stored_bytes(block[role].weight);
    change.seconds = std::chrono::duration<double>(Clock::now() - since).count();
    work.context.progress(change.layer);
    work.report.changed.push_back(std::move(change));
  }
};

// The block with fewer channels, its norms giving on average what they gave.
Block with_channels(Block block, const at::Tensor& channels, double attention_ratio,
                    double mlp_ratio) {
  slice_channels(block, channels);
  if (attends(block)) block[Norm::kAttention] = block[Norm::kAttention] * attention_ratio;
  block[Norm::kMlp] = block[Norm::kMlp] * mlp_ratio;
  return block;
}

OuterWeights outer_of(const Model& model) {
  OuterWeights outer{model.embedding(), model.final_norm(), {}};
  if (!model.config().tied_head) outer.head = model.head();
  return outer;
}

std::string change_of(std::int64_t before, std::int64_t after) {
  return std::to_string(before) + " -> " + std::to_string(after);
}

// Moves a step of neurons and a KV head from `less` to `more` where both have been cut; `own` is
// what `more` had.
void differ(BlockWidths& more, BlockWidths& less, const BlockWidths& own, std::int64_t align) {
  if (less.ffn > align && more.ffn + align <= own.ffn) more.ffn += align, less.ffn -= align;
  if (less.kv_heads > 1 && more.kv_heads < own.kv_heads) {
    more.heads += more.heads / more.kv_heads, ++more.kv_heads;
    less.heads -= less.heads / less.kv_heads, --less.kv_heads;
  }
}

}  // namespace

WidthPass::WidthPass(WidthConfig config) : config_(std::move(config)) {
  require<UsageError>(config_.ffn < 1 || config_.kv_heads < 1 || config_.hidden < 1, kName,
                      "nothing to prune: give ffn, kv_heads or hidden below 1");
  require<UsageError>(
      config_.uniform || config_.choose == "obs", kName,
      "uniform: false needs choose: obs, whose losses say what lies between levels");
}

std::int64_t WidthPass::neurons(const ModelConfig& config) const {
  return aligned(config_.ffn, config.ffn, config_.align);
}

std::int64_t WidthPass::kv_heads(const ModelConfig& config) const {
  return aligned(config_.kv_heads, config.kv_heads, 1);
}

std::int64_t WidthPass::channels(const ModelConfig& config) const {
  return aligned(config_.hidden, config.hidden, config_.align);
}

std::vector<BlockWidths> WidthPass::common_widths(const ModelConfig& config) const {
  std::vector<BlockWidths> widths;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    const ModelConfig one = config.of_block(block);
    const std::int64_t kept = kv_heads(one);
    widths.push_back({neurons(one), kept > 0 ? one.heads / one.kv_heads * kept : 0, kept});
  }
  return widths;
}

void WidthPass::check_effect(const ModelConfig& config,
                             const std::vector<BlockWidths>& widths) const {
  bool fewer_neurons = config_.ffn >= 1, fewer_heads = config_.kv_heads >= 1;
  for (std::size_t block = 0; block < widths.size(); ++block) {
    const BlockWidths own = config.widths_of(static_cast<std::int64_t>(block));
    fewer_neurons = fewer_neurons || widths[block].ffn < own.ffn;
    fewer_heads = fewer_heads || widths[block].kv_heads < own.kv_heads;
  }
  const auto check = [](bool effect, const char* option, double share, std::int64_t all,
                        std::int64_t step) {
    require<UsageError>(effect, kName, option, ": ", share, " takes nothing away: of ", all,
                        " stay multiples of ", step, ", one at least; ",
                        all > step ? "lower the share"
                        : step > 1 ? "lower align"
                                   : "leave it out");
  };
  check(fewer_neurons, "ffn", config_.ffn, config.ffn, config_.align);
  check(fewer_heads, "kv_heads", config_.kv_heads, config.kv_heads, 1);
  check(config_.hidden >= 1 || channels(config) < config.hidden, "hidden", config_.hidden,
        config.hidden, config_.align);
}

ModelConfig WidthPass::shape_after(const ModelConfig& config) const {
  ModelConfig after = config;
  after.hidden = channels(config);
  std::vector<BlockWidths> widths = common_widths(config);
  check_effect(config, widths);
  if (shares()) {
    after.widths_open = true;
    for (std::size_t block = 0; block + 1 < widths.size(); block += 2) {
      differ(widths[block], widths[block + 1], config.widths_of(static_cast<std::int64_t>(block)),
             config_.align);
    }
  }
  after.set_widths(std::move(widths));
  return after;
}

std::vector<PlannedLayer> WidthPass::plan(const ModelConfig& config) const {
  const bool narrower = channels(config) < config.hidden;
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    const ModelConfig one = config.of_block(block);
    const bool fewer_heads = kv_heads(one) < one.kv_heads, fewer_neurons = neurons(one) < one.ffn;
    for (const Role role : kRoles) {
      const bool attention = index_of(role) <= index_of(Role::kOutput);
      PlannedLayer layer{block, role, narrower || (attention ? fewer_heads : fewer_neurons),
                         "prune.width", "unchanged"};
      if (layer.changes) {
        std::string what;
        const auto add = [&](const std::string& part) {
          what += (what.empty() ? "" : ", ") + part;
        };
        if (attention && fewer_heads) add("KV heads " + change_of(one.kv_heads, kv_heads(one)));
        if (!attention && fewer_neurons) add("neurons " + change_of(one.ffn, neurons(one)));
        if (narrower) add("channels " + change_of(config.hidden, channels(config)));
        layer.action = what + (config_.uniform ? "" : " on average");
      }
      planned.push_back(std::move(layer));
    }
  }
  return planned;
}

std::int64_t WidthPass::working_bytes(const ModelConfig& config) const {
  const std::int64_t n = std::max({config.hidden, config.q_width(), config.ffn});
  const std::int64_t sharing = shares() ? BlockSensitivity::bytes(config, kProbeWindows * 512) : 0;
  return 7 * 8 * n * n + 4 * 4 * config.hidden * config.ffn + sharing;
}

RemovalOrder WidthPass::order(const at::Tensor& weight, const at::Tensor& gram, std::int64_t width,
                              std::int64_t count, const std::string& layer) const {
  if (config_.choose == "obs") {
    return removal_order(weight, gram, count, {.width = width, .damping = config_.damping}, layer);
  }
  const std::int64_t units = weight.size(1) / width;
  const at::Tensor sizes =
      weight.square().sum(0, false, at::kDouble).reshape({units, width}).sum(1);
  RemovalOrder found;
  found.units.resize(static_cast<std::size_t>(units));
  std::iota(found.units.begin(), found.units.end(), 0);
  const auto* size = sizes.const_data_ptr<double>();
  std::stable_sort(found.units.begin(), found.units.end(),
                   [&](std::int64_t a, std::int64_t b) { return size[a] < size[b]; });
  found.units.resize(static_cast<std::size_t>(count));
  return found;
}

void WidthPass::run_block(ModelWork& work, std::int64_t index, const BlockWidths& keep,
                          const at::Tensor& kept_channels, BlockStream& stream) const {
  const Block original = work.input.block(index);
  const ModelConfig config = work.input.config().of_block(index);
  const bool narrower = kept_channels.size(0) < config.hidden;
  Block block = work.output.block(index);
  const Surgery surgery{work, index, block, original, kept_channels, narrower, config_.damping};

  // The consumer of what is cut: chooses, cuts everywhere, refits.
  const auto cut = [&](Role role, std::int64_t width, std::int64_t units, std::int64_t stay,
                       const linalg::GramStatistics& statistics, const linalg::CrossGram* cross) {
    if (stay == units && !(narrower && cross)) return;
    const auto since = Clock::now();
    const std::string layer = layer_name(index, role);
    std::vector<std::int64_t> kept(static_cast<std::size_t>(units));
    std::iota(kept.begin(), kept.end(), 0);
    std::string action = "refit";
    if (stay < units) {
      const RemovalOrder found =
          order(dense(block[role].weight), statistics.gram, width, units - stay, layer);
      surgery.note(layer, found.fallbacks);
      kept = found.kept(units - stay, units);
      action = config_.choose + " " + change_of(units, stay) +
               (role == Role::kDown ? " neurons" : " KV heads") + (cross ? ", refit" : "");
    }
    const at::Tensor columns = columns_of(kept, width);
    if (cross) {
      surgery.refit(role, statistics, *cross, columns, all_of(units * width), action, since);
    } else {
      surgery.record(role, select_columns_of(block[role].weight, columns), statistics, columns,
                     action, since);
    }
    if (stay == units) return;
    // The consumer has its columns already: everything else that belongs to the units.
    const Weight consumer = block[role].weight;
    block[role].weight = original[role].weight;
    role == Role::kDown ? slice_neurons(block, kept) : slice_kv_groups(block, config, kept);
    block[role].weight = consumer;
  };
  const auto visit = [&](Site site, const linalg::GramStatistics& statistics,
                         const linalg::CrossGram* cross) {
    work.context.check_stop();
    if (site == Site::kOutputInput) {
      cut(Role::kOutput, config.q_width() / config.kv_heads, config.kv_heads, keep.kv_heads,
          statistics, cross);
    } else if (site == Site::kDownInput) {
      cut(Role::kDown, 1, config.ffn, keep.ffn, statistics, cross);
    } else if (narrower && cross) {
      for (const Role role : roles_of(block)) {
        if (site_of(role) != site) continue;
        surgery.refit(role, statistics, *cross, all_of(kept_channels.size(0)), kept_channels,
                      "channels " + change_of(config.hidden, kept_channels.size(0)) + ", refit",
                      Clock::now());
      }
    }
  };
  if (config_.refit) {
    stream.sequential(block, original, work.context,
                      [&](Site site, const linalg::GramStatistics& statistics,
                          const linalg::CrossGram& cross) { visit(site, statistics, &cross); });
    stream.advance(block, original);
  } else {
    stream.sequential(block, work.context,
                      [&](Site site, const linalg::GramStatistics& statistics) {
                        visit(site, statistics, nullptr);
                      });
    stream.advance(block);
  }
  work.output.put_block(index, block);
  work.input.done_with_block(index);
}

void WidthPass::run(ModelWork& work) const {
  const ModelConfig config = work.input.config();
  at::Tensor kept = all_of(config.hidden);
  if (channels(config) < config.hidden) {
    const at::Tensor scores = channel_scores(work.input, work.calibration->ids, work.context);
    kept = columns_of(highest(scores, channels(config)), 1);
    const std::vector<double> ratios =
        norm_ratios(work.input, work.calibration->ids, kept, work.context);
    OuterWeights outer = slice_channels(outer_of(work.input), kept);
    outer.final_norm = outer.final_norm * ratios.back();
    work.output.put_outer(outer);
    for (std::int64_t index = 0; index < config.layers; ++index) {
      const auto norm = static_cast<std::size_t>(2 * index);
      work.output.put_block(
          index, with_channels(work.input.block(index), kept, ratios[norm], ratios[norm + 1]));
    }
  }
  const std::vector<BlockWidths> widths = share(work);
  StreamOptions options;
  options.dense_stream = config_.refit;
  options.residual = config_.follow;
  if (kept.size(0) < config.hidden) options.dense_model = &work.input;
  BlockStream stream(work.output, *work.calibration, options);
  for (std::int64_t index = 0; index < config.layers; ++index) {
    run_block(work, index, widths[static_cast<std::size_t>(index)], kept, stream);
  }
}

}  // namespace attar
