// How many neurons and KV heads each block keeps.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros_like.h>

#include "compress/calibrate/block_sensitivity.h"
#include "prune/width.h"

namespace attar {
namespace {

constexpr double kFelt = 1e-3;  // of a layer's energy: less is lost in rounding

// How far units may be cut, in steps that leave a multiple of `align` (the first may be smaller).
struct Levels {
  std::int64_t units = 0, align = 1;

  std::int64_t count() const { return (units - 1) / align; }
  // Units that have gone at a level, 0..count().
  std::int64_t gone(std::int64_t level) const {
    return level == 0 ? 0 : units - (count() + 1 - level) * align;
  }
  // That of a multiple of `align`, or of all units.
  std::int64_t of(std::int64_t stay) const {
    return stay == units ? 0 : count() + 1 - stay / align;
  }
};

}  // namespace

// What the predictions lose with every block at every level, shared out so that the sum is least
// and the number that goes is the same as if all were alike. The KL is measured of each block cut
// alone; between levels it follows the loss of the layer's outputs, both being quadratic in what is
// missing.
std::vector<BlockWidths> WidthPass::share(ModelWork& work) const {
  const ModelConfig& config = work.input.config();
  std::vector<BlockWidths> widths = common_widths(config);
  if (!shares()) return widths;
  std::vector<std::vector<double>> neuron_costs, head_costs;
  std::int64_t neuron_levels = 0, head_levels = 0;
  BlockStream stream(work.input, *work.calibration, {});
  const at::Tensor& ids = work.calibration->ids;
  BlockSensitivity sensitivity(work.input, ids.narrow(0, 0, std::min(kProbeWindows, ids.size(0))),
                               work.context);
  for (std::int64_t index = 0; index < config.layers; ++index) {
    const Block block = work.input.block(index);
    const ModelConfig one = config.of_block(index);
    const auto costs = [&](Role role, const at::Tensor& gram, const Levels& levels,
                           std::int64_t stay) {
      const std::int64_t units = levels.units, width = gram.size(0) / units;
      const std::int64_t most = levels.gone(levels.count());
      const std::string layer = layer_name(index, role);
      const at::Tensor weight = dense(block[role].weight);
      const RemovalOrder found = order(weight, gram, width, most, layer);
      const auto loss = [&](std::int64_t gone) {
        return found.losses[static_cast<std::size_t>(gone)];
      };
      // To the common width, or a step, or until it is felt.
      std::int64_t gone = std::min(std::max(units - stay, levels.gone(1)), most);
      while (gone < most && loss(gone) < kFelt * found.energy) ++gone;
      const at::Tensor kept = columns_of(found.kept(gone, units), width);
      const at::Tensor fitted = config_.refit ? refit_columns(weight, {}, gram, gram, kept,
                                                              at::arange(units * width, at::kLong),
                                                              config_.damping, layer)
                                                    .weight
                                              : at::index_select(weight, 1, kept);
      Block cut = block;
      cut[role].weight = DenseWeight{at::zeros_like(weight).index_copy_(1, kept, fitted)};
      const double nats = loss(gone) > 0 ? sensitivity.divergence_with(cut) / loss(gone) : 0;
      work.context.progress(layer);
      std::vector<double> by_level;
      for (std::int64_t level = 0; level <= levels.count(); ++level) {
        by_level.push_back(nats * loss(levels.gone(level)));
      }
      return by_level;
    };
    stream.sequential(
        block, work.context, [&](Site site, const linalg::GramStatistics& statistics) {
          if (site == Site::kDownInput && config_.ffn < 1) {
            const Levels levels{one.ffn, config_.align};
            neuron_costs.push_back(costs(Role::kDown, statistics.gram, levels, neurons(one)));
            neuron_levels += levels.of(neurons(one));
          }
          if (site == Site::kOutputInput && config_.kv_heads < 1) {
            const Levels levels{one.kv_heads, 1};
            head_costs.push_back(costs(Role::kOutput, statistics.gram, levels, kv_heads(one)));
            head_levels += levels.of(kv_heads(one));
          }
        });
    if (config_.kv_heads < 1 && !attends(block)) head_costs.push_back({0.0});
    stream.advance(block);
    sensitivity.advance();
    work.input.done_with_block(index);
  }
  const auto neuron_share = share_out(neuron_costs, neuron_levels);
  const auto head_share = share_out(head_costs, head_levels);
  std::string shared;
  for (std::size_t block = 0; block < widths.size(); ++block) {
    const BlockWidths own = config.widths_of(static_cast<std::int64_t>(block));
    BlockWidths& kept = widths[block];
    if (!neuron_share.empty()) {
      kept.ffn = own.ffn - Levels{own.ffn, config_.align}.gone(neuron_share[block]);
    }
    if (!head_share.empty()) {
      kept.kv_heads = own.kv_heads - head_share[block];
      kept.heads = own.attends() ? own.heads / own.kv_heads * kept.kv_heads : 0;
    }
    shared += (block > 0 ? ", " : "") + std::to_string(kept.ffn) + " and " +
              std::to_string(kept.kv_heads);
  }
  work.report.events.push_back(
      {"model", "widths", "neurons and KV heads by block: " + shared, /*fallback=*/false});
  return widths;
}

}  // namespace attar
