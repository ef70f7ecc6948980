// attar's own checkpoint of one block, without loss: a safetensors file with the tensors of each
// weight as they are, and their kinds and schemes as JSON under "attar" in __metadata__.
//
//   attention_norm, mlp_norm            [hidden] F32
//   <role>.bias                         [O] F32, where there is one
//   <role>.values                       dense [O, I], sparse [nonzeros]
//   <role>.mask                         sparse, [O, ceil(I / 8)] U8
//   <role>.codes, .scale, .zero         quantized, [O, I] U8, [O, G] F32, [O, G] F32
//   <role>.a, <role>.b                  low rank, also the correction of a base
#pragma once

#include <filesystem>
#include <functional>
#include <mutex>
#include <set>

#include "compress/core/model.h"

namespace attar {

// Atomic: the file is whole or absent. Equal blocks give equal bytes.
void write_block_file(const std::filesystem::path& path, const Block& block);

// Tensors are read-only views of the mapped file. Throws BadInput naming the file when it is no
// block file of attar, a tensor is missing or misfits, or the SHA-256 kept in the file is not that
// of its tensors (`verify`).
Block read_block_file(const std::filesystem::path& path, bool verify = true);

// Blocks of a run in a folder, a file each. A file that is not there is a block that nobody has
// written. May be used from several threads.
class FolderBlockStore final : public BlockStore {
 public:
  using NameOf = std::function<std::string(std::int64_t)>;

  // `name_of` gives file names inside the folder; default "block-00012.safetensors". The folder is
  // made when the first block is written.
  explicit FolderBlockStore(std::filesystem::path folder, NameOf name_of = {});

  // Verifies the checksum the first time that a file is read.
  std::optional<Block> read(std::int64_t index) const override;
  void write(std::int64_t index, const Block& block) override;

  std::filesystem::path path_of(std::int64_t index) const;

 private:
  std::filesystem::path folder_;
  NameOf name_of_;
  mutable std::mutex mutex_;
  mutable std::set<std::int64_t> verified_;
};

}  // namespace attar
