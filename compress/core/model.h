// A model in work: its source, read-only, plus an overlay of what passes have written. A pass reads
// through the overlay and never knows whether a block is original, changed or restored.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

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
  virtual std::string path() const = 0;
  virtual std::string format() const = 0;  // "huggingface", "gguf"
  virtual std::string sha256() const = 0;  // of the weights' bytes; may take a while
  virtual std::int64_t file_bytes() const = 0;
};

// Blocks that passes have written.
class BlockStore {
 public:
  virtual ~BlockStore() = default;
  virtual std::optional<Block> read(std::int64_t index) const = 0;
  virtual void write(std::int64_t index, const Block& block) = 0;
};

class MemoryBlockStore final : public BlockStore {
 public:
  std::optional<Block> read(std::int64_t index) const override;
  void write(std::int64_t index, const Block& block) override { blocks_[index] = block; }

 private:
  std::map<std::int64_t, Block> blocks_;
};

class Model {
 public:
  explicit Model(std::shared_ptr<const ModelSource> source,
                 std::shared_ptr<BlockStore> overlay = std::make_shared<MemoryBlockStore>());

  const ModelConfig& config() const { return source_->config(); }
  const ModelSource& source() const { return *source_; }
  std::shared_ptr<const ModelSource> shared_source() const { return source_; }

  Block block(std::int64_t index) const;
  void put_block(std::int64_t index, const Block& block);
  bool changed(std::int64_t index) const { return overlay_->read(index).has_value(); }
  // The same source with a further overlay on top of nothing: what the run has not changed.
  Model original() const { return Model(source_); }

  Weight embedding() const { return source_->read_embedding(); }
  at::Tensor final_norm() const { return source_->read_final_norm(); }
  Weight head() const { return source_->read_head(); }

 private:
  std::shared_ptr<const ModelSource> source_;
  std::shared_ptr<BlockStore> overlay_;
};

}  // namespace attar
