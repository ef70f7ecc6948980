#include "compress/calibrate/blockwise.h"

namespace attar {

void run_blockwise(std::span<const BlockwisePass* const> passes, Model& model, BlockStream* stream,
                   const RunContext& context,
                   const std::function<std::optional<BlockOutcome>(std::int64_t)>& restore,
                   const std::function<void(std::int64_t, const BlockOutcome&)>& finished) {
  std::int64_t pending = 0;  // the first block that the stream may read once more
  for (std::int64_t index = 0; index < model.config().layers; ++index) {
    context.check_stop();
    // Before restore: the overlay shows a restored block from then on.
    const Block start = model.block(index);
    std::optional<BlockOutcome> outcome = restore(index);
    const bool restored = outcome.has_value();
    if (!restored) {
      outcome.emplace();
      Block original = outcome->block = start;
      check_finite(outcome->block, index);
      std::array<at::Tensor, kRoles.size()> kept;
      for (const Role role : roles_of(start)) {
        kept[index_of(role)] = kept_positions(start[role].weight);
      }
      for (const BlockwisePass* pass : passes) {
        const ModelConfig config =
            model.config().with(widths_of(outcome->block, model.config().head_dim));
        BlockWork work{model,
                       config,
                       index,
                       outcome->block,
                       original,
                       pass->needs().calibration ? stream : nullptr,
                       outcome->reports.emplace_back(),
                       context,
                       std::move(kept)};
        pass->run_block(work);
        kept = std::move(work.kept);
      }
      finished(index, *outcome);
    }
    model.put_block(index, outcome->block);
    // As it came: of a restored block nobody knows how its passes scaled the unchanged one.
    if (stream) stream->advance(outcome->block, start);
    for (std::int64_t i = pending; i <= index; ++i) model.done_with_block(i);
    if (!restored) pending = index;
  }
}

}  // namespace attar
