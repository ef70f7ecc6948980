#include "compress/core/model.h"

#include "compress/core/errors.h"

namespace attar {

std::optional<Block> MemoryBlockStore::read(std::int64_t index) const {
  const auto found = blocks_.find(index);
  return found == blocks_.end() ? std::nullopt : std::optional(found->second);
}

Model::Model(std::shared_ptr<const ModelSource> source, std::shared_ptr<BlockStore> overlay)
    : source_(std::move(source)), overlay_(std::move(overlay)) {
  check(source_->config(), source_->path());
}

Block Model::block(std::int64_t index) const {
  require(index >= 0 && index < config().layers, source_->path(), "block must be in [0, ",
          config().layers, "), got ", index);
  if (std::optional<Block> changed = overlay_->read(index)) return *std::move(changed);
  return source_->read_block(index);
}

void Model::put_block(std::int64_t index, const Block& block) {
  check(block, config(), "model.layers." + std::to_string(index));
  overlay_->write(index, block);
}

}  // namespace attar
