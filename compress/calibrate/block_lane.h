// The activations of one model on their way through its blocks: what BlockStream has one of for the
// changed model and, with a dense stream, one more for the unchanged.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <functional>
#include <optional>

#include "compress/core/block_runner.h"
#include "compress/core/pass.h"

namespace attar {

// Shapes: N sequences of T tokens. Memory: [N, T, hidden] between blocks, as much again inside one.
class BlockLane {
 public:
  // activations [N, T, hidden] float32, taken over; `batch` sequences a forward.
  BlockLane(ModelConfig config, RopeTable rope, at::Tensor activations, std::int64_t batch);

  std::int64_t sequences() const { return activations_.size(0); }
  std::int64_t length() const { return activations_.size(1); }
  std::int64_t hidden() const { return activations_.size(2); }

  // The block is final; its outputs are computed when somebody enters a later one.
  void advance(const Block& block);

  // Stands before `block`: runs what is pending, prepares the weights.
  void enter(const Block& block, const RunContext& run);
  bool entered() const { return entered_.has_value(); }

  // Computes what the inputs at `site` need from before. Then, batch by batch and for all of them,
  // `inputs` [count, T, width] (valid until the next call), then `visited`. The last site ends the
  // visit: no `outputs` behind it.
  void reach(Site site, const RunContext& run);
  at::Tensor inputs(Site site, std::int64_t first, std::int64_t count);
  // What the output of o or down is added to, [count, T, hidden]: with `inputs` of their sites.
  at::Tensor added_to(Site site, std::int64_t first, std::int64_t count) const {
    return (site == Site::kOutputInput ? activations_ : scratch_).narrow(0, first, count);
  }
  void visited(Site site);

  // Inputs of the entered block, [count, T, hidden].
  at::Tensor activations(std::int64_t first, std::int64_t count) const {
    return activations_.narrow(0, first, count);
  }

  // Of the entered block, [count, T, hidden].
  at::Tensor outputs(std::int64_t first, std::int64_t count) const {
    return runner_->forward(activations(first, count));
  }

  // The entered block was changed in place: takes weights over, and forgets what no longer stands.
  void refresh(const Block& block);

  // Ends the visit; what was computed for it is used by `advance` where it still holds.
  void leave();
  // The same, and gives the memory of weights and rows back until a block is run again.
  void rest();

  // Batches [first, first + count) of sequences.
  void for_batches(const RunContext& run,
                   const std::function<void(std::int64_t first, std::int64_t count)>& body) const;

 private:
  enum class Stage { kNothing, kMixed, kHidden };  // what scratch_ holds of the entered block

  void catch_up(const RunContext& run);
  BlockRunner& prepared(const Block& block);

  ModelConfig config_;
  RopeTable rope_;
  std::int64_t batch_;
  at::Tensor activations_;  // inputs of the first pending block
  at::Tensor scratch_;      // [N, T, q_width or hidden]: attention output, then x + o(it)
  at::Tensor hidden_;       // becomes scratch_ when all batches are computed
  Stage stage_ = Stage::kNothing;
  std::deque<Block> pending_;      // final blocks whose outputs nobody has needed yet
  std::optional<Block> entered_;   // as it was when what is in memory was computed
  std::optional<Block> attended_;  // scratch_ holds activations_ after the attention of this block
  std::optional<BlockRunner> runner_;  // of one block after the other, in the same memory
};

}  // namespace attar
