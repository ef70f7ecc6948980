// A model in work: its source, read-only, plus an overlay of what passes have written. A pass reads
// through the overlay and never knows whether a block is original, changed or restored.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/block.h"
#include "compress/core/config.h"

namespace attar {

// Where original weights come from; compress/formats implements it a format. Tensors may be views
// of a mapped file: valid as long as they live, never written.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  virtual const ModelConfig& config() const = 0;
  virtual Block read_block(std::int64_t index) const = 0;
  virtual Weight read_embedding() const = 0;       // [vocabulary, hidden]
  virtual at::Tensor read_final_norm() const = 0;  // [hidden] float32
  virtual Weight read_head() const = 0;            // [vocabulary, hidden]; the embedding when tied
  // Lets the system drop the pages of a block that is no longer needed.
  virtual void done_with_block(std::int64_t index) const = 0;
  // The same of embedding and head.
  virtual void done_with_outer() const = 0;
  virtual std::string path() const = 0;
  virtual std::string format() const = 0;  // "huggingface", "gguf"
  // Of all that decides what it computes: weights and configuration. May take a while.
  virtual std::string sha256() const = 0;
  virtual std::int64_t file_bytes() const = 0;
};

// What a model holds outside of its blocks.
struct OuterWeights {
  Weight embedding;            // [vocabulary, hidden]
  at::Tensor final_norm;       // [hidden] float32
  std::optional<Weight> head;  // [vocabulary, hidden]; empty: tied to the embedding
};

// What passes have written.
class ModelStore {
 public:
  virtual ~ModelStore() = default;
  virtual std::optional<Block> read(std::int64_t index) const = 0;
  virtual void write(std::int64_t index, const Block& block) = 0;
  virtual std::optional<OuterWeights> read_outer() const = 0;
  virtual void write_outer(const OuterWeights& outer) = 0;
};

class MemoryModelStore final : public ModelStore {
 public:
  std::optional<Block> read(std::int64_t index) const override;
  void write(std::int64_t index, const Block& block) override { blocks_[index] = block; }
  std::optional<OuterWeights> read_outer() const override { return outer_; }
  void write_outer(const OuterWeights& outer) override { outer_ = outer; }

 private:
  std::map<std::int64_t, Block> blocks_;
  std::optional<OuterWeights> outer_;
};

// Its shape follows from what was written: blocks bring their widths, `put_outer` vocabulary and
// hidden size, `keep_blocks` the depth; `keep_tokens` says which tokens the rows are.
class Model {
 public:
  explicit Model(std::shared_ptr<const ModelSource> source,
                 std::shared_ptr<ModelStore> overlay = std::make_shared<MemoryModelStore>());

  // A model on top of this one: only `kept` of its blocks in this order (empty: all), rows for
  // `tokens` of the source (empty: as here), and what the overlay holds already or will be given.
  // This one must stay as it is: the next pass of a recipe writes there what it changes.
  Model successor(std::shared_ptr<ModelStore> overlay, std::vector<std::int64_t> kept = {},
                  std::vector<std::int64_t> tokens = {}) const;

  const ModelConfig& config() const { return config_; }
  // What the run started from.
  const ModelSource& source() const { return *source_; }
  std::shared_ptr<const ModelSource> shared_source() const { return source_; }
  Model original() const { return Model(source_); }

  Block block(std::int64_t index) const;
  Weight embedding() const;
  at::Tensor final_norm() const;
  Weight head() const;  // the embedding when tied

  // Throws BadInput when the block does not fit the model's hidden size. Its widths may be new.
  void put_block(std::int64_t index, const Block& block);
  // Vocabulary and hidden size are taken from the embedding. Blocks of another hidden size must be
  // written afterwards.
  void put_outer(const OuterWeights& outer);
  // Only these blocks of the model below stay, in this order. Before any block is written.
  void keep_blocks(std::vector<std::int64_t> blocks);
  const std::vector<std::int64_t>& kept_blocks() const { return kept_; }  // empty: all
  // Row i of embedding and head is from now on token `tokens[i]` of the model as it is; the rows
  // themselves are written with put_outer. BOS and EOS of the configuration follow.
  void keep_tokens(const std::vector<std::int64_t>& tokens);
  // The token of the source that each row stands for; empty: each for itself.
  const std::vector<std::int64_t>& source_tokens() const { return tokens_; }

  // Whether a pass wrote this block (or embedding, final norm and head).
  bool changed(std::int64_t index) const;
  bool outer_changed() const;
  // The block of the source that this one was made from.
  std::int64_t source_block(std::int64_t index) const;
  // Lets the system drop the pages of the source that a block was read from.
  void done_with_block(std::int64_t index) const;
  void done_with_outer() const { source_->done_with_outer(); }

 private:
  std::int64_t below(std::int64_t index) const;
  void take_widths(std::int64_t index, const Block& block);
  void take_shape(const OuterWeights& outer);
  void take_tokens(std::vector<std::int64_t> tokens);

  std::shared_ptr<const ModelSource> source_;
  std::shared_ptr<const Model> base_;  // null: the source itself
  std::shared_ptr<ModelStore> overlay_;
  ModelConfig config_;
  std::vector<std::int64_t> kept_;    // block i is block kept_[i] below; empty: i
  std::vector<std::int64_t> tokens_;  // row i is token tokens_[i] of the source; empty: i
};

}  // namespace attar
