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
#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "compress/linalg/cross_gram.h"
#include "compress/linalg/gram.h"

namespace attar {

struct StreamOptions {
  std::int64_t batch = 0;                  // sequences a forward; 0: as the tokens say
  std::shared_ptr<StatisticsStore> store;  // null: nothing is kept or reused
  // The unchanged model's activations go beside: as much memory and one more forward again.
  bool dense_stream = false;
  // The unchanged model, where that is not the one the stream begins with (other channels).
  const Model* dense_model = nullptr;
  // With them CrossGram::residual, for o and down, where both models have the same channels.
  bool residual = true;
};

// What a layer reads, some tokens of it whole.
struct InputSample {
  at::Tensor rows;           // [rows, I] float32, finite
  at::Tensor max_absolute;   // [I] float32, over all tokens that are finite
  std::int64_t dropped = 0;  // tokens that are not
};

// What a block reads and what it should give, of all calibration sequences.
struct BlockEnds {
  at::Tensor inputs;   // [N, T, hidden] float32; a view: the stream must stay before the block
  at::Tensor targets;  // [N, T, hidden] float32
  at::Tensor weights;  // [T] float32: how much an error of the outputs counts; undefined: all alike
};

// The inputs of one block for all calibration sequences. Statistics do not depend on batch or
// threads: they are folded at fixed token positions. Where tokens have weights, what a layer reads
// is multiplied by the root of its token's weight in statistics, crosses and samples (but not in
// InputSample::max_absolute): errors are then those of weighted tokens.
class BlockStream {
 public:
  // `model` gives configuration, embedding and fingerprint.
  BlockStream(const Model& model, CalibrationTokens tokens, StreamOptions options);
  ~BlockStream();

  std::int64_t tokens() const;
  std::int64_t sequences() const;
  bool has_dense() const;

  // Statistics of the block's inputs as it stands (sites_of; null for the others); the stream stays
  // before the block.
  std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()> collect(
      const Block& block, const RunContext& context);

  // Of the same inputs, tokens at even distances over the calibration text, about `tokens` of
  // them; the same ones whatever the batch. The stream stays before the block.
  std::array<InputSample, kSites.size()> sample(const Block& block, const RunContext& context,
                                                std::int64_t tokens);

  // True-sequential: visits the block's inputs in order; `change(site, statistics)` may change the
  // linear layers that read this input, and those before it (which are then computed again); later
  // inputs see the change. The stream stays before the block.
  void sequential(const Block& block, const RunContext& context,
                  const std::function<void(Site, const linalg::GramStatistics&)>& change);

  // The same with StreamOptions::dense_stream. `original` is the block that the unchanged model has
  // here; `cross` is X_dense X^T, its inputs at the site against those that `block` sees, for
  // refits whose target is the dense output. Rows of `cross` are the original's input
  // columns, of which there may be more. It is the caller's, who may give its memory back.
  using DenseChange =
      std::function<void(Site, const linalg::GramStatistics& statistics, linalg::CrossGram& cross)>;
  void sequential(const Block& block, const Block& original, const RunContext& context,
                  const DenseChange& change);

  // Either: where `original` is null nothing of the unchanged model is computed and `cross` is
  // null.
  using MaybeDenseChange =
      std::function<void(Site, const linalg::GramStatistics& statistics, linalg::CrossGram* cross)>;
  void sequential(const Block& block, const Block* original, const RunContext& context,
                  const MaybeDenseChange& change);

  // The inputs that the block has now, and as targets what `original` makes of the unchanged
  // model's (a share `towards_dense` of the way) and of these same inputs (the rest). The stream
  // stays before the block.
  BlockEnds ends(const Block& block, const Block& original, double towards_dense,
                 const RunContext& context);

  // The block is final: its outputs become the stream's activations (computed when needed).
  void advance(const Block& block);
  // With a dense stream: the original block's outputs become its own.
  void advance(const Block& block, const Block& original);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace attar
