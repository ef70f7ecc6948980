// The finished blocks of a run, each durable the moment it is done: what `kill -9` leaves, and what
// the same command goes on from.
//
//   FOLDER/block-00012-<id>.safetensors   the block (compress/formats/block_file.h)
//   FOLDER/block-00012-<id>.json          what the passes said about it; written last
//   FOLDER/outer.safetensors              embedding, final norm and head, when a pass changed them
//   FOLDER/done-<id>.json                 a pass over the whole model is done: which blocks it kept
//                                         and wrote, and what it said; written last
//
// One folder for each phase of a run: neighbouring block-wise passes, or one pass over the whole.
// <id> is the hash of everything that decides the block's bits (model, recipe, calibration text,
// arithmetic), so a file can be missing but never stale.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "compress/calibrate/blockwise.h"
#include "compress/formats/block_file.h"

namespace attar {

// Also the overlay of the model in work: what a block is can be read from here only.
class Checkpoint final : public ModelStore {
 public:
  Checkpoint(std::filesystem::path folder, std::string id);

  std::optional<Block> read(std::int64_t index) const override;
  // Blocks that finish() has made durable are not written again.
  void write(std::int64_t index, const Block& block) override;

  // A block that an earlier run finished, or nothing. What is torn or damaged counts as nothing and
  // its name is added to damaged().
  std::optional<BlockOutcome> restore(std::int64_t index);
  void finish(std::int64_t index, const BlockOutcome& outcome);

  // Phases of one pass over the whole model. `kept` (Model::kept_blocks), `tokens`
  // (Model::source_tokens) and the report, or nothing while the pass is not done.
  struct Done {
    std::vector<std::int64_t> kept;
    std::vector<std::int64_t> tokens;
    PassReport report;
  };
  std::optional<Done> restore_done();
  void finish_done(const Done& done);
  std::filesystem::path state_folder() const { return folder_ / "state"; }

  std::optional<OuterWeights> read_outer() const override;
  void write_outer(const OuterWeights& outer) override;

  std::int64_t finished_blocks() const { return static_cast<std::int64_t>(finished_.size()); }
  const std::vector<std::string>& damaged() const { return damaged_; }
  // Whether any block of an earlier run lies in the folder.
  bool any_on_disk() const;

 private:
  std::filesystem::path report_path(std::int64_t index) const;

  std::filesystem::path done_path() const;

  std::filesystem::path folder_;
  std::string id_;
  FolderModelStore blocks_;
  bool outer_finished_ = false;
  std::set<std::int64_t> finished_;  // may be read
  std::set<std::int64_t> durable_;   // with their reports: not written again
  std::vector<std::string> damaged_;
};

}  // namespace attar
