// Passes that change a model one block at a time, and the one loop that drives neighbouring ones
// over a shared stream: read a block, let each pass change it, store it, run it to make the inputs
// of the next.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>

#include "compress/calibrate/stream.h"
#include "compress/core/pass.h"

namespace attar {

struct BlockWork {
  const Model& model;         // in work; model.original() is what the run started from
  const ModelConfig& config;  // of this block as it stands
  std::int64_t index;         // of the block
  Block& block;               // changed in place
  // The block before the first of the passes that share the stream: what it computes is the target
  // of refits. A pass that writes the block in another way without changing what it computes
  // (quantize.awq) writes this one in the same way.
  Block& original;
  BlockStream* stream;  // activations entering the block; null when no pass needs them
  PassReport& report;   // this pass's report of this block
  const RunContext& context;
  // By role [O, I]: what a pass of this walk has set to 0 is 0 here; undefined: none has.
  std::array<at::Tensor, kRoles.size()> kept = {};
};

class BlockwisePass : public Pass {
 public:
  virtual void run_block(BlockWork& work) const = 0;
};

// What one block went through: one report a pass, in the order of the passes.
struct BlockOutcome {
  Block block;
  std::vector<PassReport> reports;
};

// The loop. `restore(index)` gives a block that an earlier run finished, or nothing;
// `finished(index, outcome)` is called once a block is done, before its outputs are used, and must
// make it durable. Restored blocks only advance the stream, and that only when a later block needs
// it. Throws Stopped between blocks and inside passes when a signal asks.
void run_blockwise(std::span<const BlockwisePass* const> passes, Model& model, BlockStream* stream,
                   const RunContext& context,
                   const std::function<std::optional<BlockOutcome>(std::int64_t)>& restore,
                   const std::function<void(std::int64_t, const BlockOutcome&)>& finished);

}  // namespace attar
