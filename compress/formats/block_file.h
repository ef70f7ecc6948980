// attar's own checkpoint of one block, or of what stands outside of the blocks, without loss: a
// safetensors file with the tensors of each
// weight as they are, and their kinds and schemes as JSON under "attar" in __metadata__.
//
//   attention_norm, mlp_norm            [hidden] F32
//   query_norm, key_norm                [head_dim] F32, where there are such
//   final_norm                          [hidden] F32; weights "embedding" and "head" (not tied)
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

// The same for embedding, final norm and head.
void write_outer_file(const std::filesystem::path& path, const OuterWeights& outer);
OuterWeights read_outer_file(const std::filesystem::path& path, bool verify = true);

// What passes wrote, in a folder: a file a block, and "outer.safetensors". A file that is not there
// is a block that nobody has written. May be used from several threads.
class FolderModelStore final : public ModelStore {
 public:
  using NameOf = std::function<std::string(std::int64_t)>;

  // `name_of` gives file names inside the folder; default "block-00012.safetensors". The folder is
  // made when the first block is written.
  explicit FolderModelStore(std::filesystem::path folder, NameOf name_of = {});

  // Verifies the checksum the first time that a file is read.
  std::optional<Block> read(std::int64_t index) const override;
  void write(std::int64_t index, const Block& block) override;
  std::optional<OuterWeights> read_outer() const override;
  void write_outer(const OuterWeights& outer) override;

  std::filesystem::path path_of(std::int64_t index) const;

 private:
  bool verified(std::int64_t part) const;
  void note_verified(std::int64_t part) const;

  std::filesystem::path folder_;
  NameOf name_of_;
  mutable std::mutex mutex_;
  mutable std::set<std::int64_t> verified_;  // blocks; -1 for the outer weights
};

}  // namespace attar
