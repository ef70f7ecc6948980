// A Hugging Face folder's weights: one model.safetensors, or an index and its shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/io/safetensors_file.h"

namespace attar::io {

class ShardedSafetensors {
 public:
  // True when the folder holds model.safetensors or model.safetensors.index.json.
  static bool present(const std::filesystem::path& folder);

  // model.safetensors wins when both exist. Reads headers only.
  //
  // Throws IoError when a file cannot be read; BadInput when the folder holds neither, when the
  // index names a shard that is no plain file name inside the folder (separators, "..", links that
  // lead out are refused), a shard is missing (named, with the remedy), a mapped tensor is not in
  // its shard, or a tensor stands in two shards.
  static ShardedSafetensors open(const std::filesystem::path& folder);

  // All tensors, by name ascending.
  std::span<const TensorView> tensors() const { return tensors_; }

  // nullptr / BadInput (with the folder and similar names) when there is no such tensor.
  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;

  const std::filesystem::path& folder() const { return folder_; }

  // The files read: the shards by name, and the index first where there is one.
  const std::vector<std::filesystem::path>& files() const { return files_; }

  // __metadata__ of the file or of the first shard.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // One sentence each: tensors that a shard holds and the index does not name (they are left out).
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Sum of the tensors' bytes.
  std::uint64_t total_bytes() const;

 private:
  void read_shards(const std::map<std::string, std::string>& shard_of);

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> warnings_;
};

}  // namespace attar::io
