// Calibration activations on their way through the model, one block at a time.
//
// Shapes: N sequences of T tokens; activations [N, T, hidden] float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "compress/calibrate/calibration_text.h"
#include "compress/calibrate/statistics_store.h"
#include "compress/core/block_runner.h"
#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "compress/linalg/gram.h"

namespace attar {

struct StreamOptions {
  std::int64_t batch = 4;                  // sequences a forward; never changes a result
  std::shared_ptr<StatisticsStore> store;  // null: nothing is kept or reused
};

// The inputs of one block for all calibration sequences. Statistics do not depend on batch or
// threads: they are folded at fixed token positions.
class BlockStream {
 public:
  // `model` gives configuration, embedding and fingerprint.
  BlockStream(const Model& model, CalibrationTokens tokens, StreamOptions options);
  ~BlockStream();

  std::int64_t tokens() const;
  std::int64_t sequences() const;

  // Statistics of all four inputs of the block as it stands; the stream stays before the block.
  std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()> collect(
      const Block& block, const RunContext& context);

  // True-sequential: visits the four inputs in order; `change(site, statistics)` may change the
  // linear layers that read this input, and later inputs see the change. The stream stays before
  // the block.
  void sequential(const Block& block, const RunContext& context,
                  const std::function<void(Site, const linalg::GramStatistics&)>& change);

  // The block is final: its outputs become the stream's activations (computed when needed).
  void advance(const Block& block);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace attar
