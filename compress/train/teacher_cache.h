// A teacher's probabilities written down once, for training runs without the teacher. A folder of
// HDF5 files, one for kShardWindows windows of the training text, each whole or absent:
//
//   counts  uint8 [windows * T]   ids kept of each token's distribution
//   ids     uint16, or int32 for vocabularies above 65536
//   values  top_k: uint16, probability = exp(-value / 4096), at least exp(-16); sampled: uint8,
//   draws that hit the id
//
// Attributes of the root: key (text, windows, teacher, kind: another key is refused), kind, draws.
// A token costs 1 + 4 K bytes (top_k) or 1 + 3 bytes a distinct id (sampled; about 12 of 50 draws).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "compress/core/pass.h"
#include "compress/train/live_teacher.h"
#include "compress/train/training_text.h"

namespace attar {

struct CacheOptions {
  std::string kind = "top_k";  // top_k | sampled
  std::int64_t count = 32;     // ids a token, or draws; at most 255
  std::uint64_t seed = 0;
};

struct CacheReport {
  std::int64_t tokens = 0;
  std::int64_t bytes = 0;    // of the files
  std::int64_t written = 0;  // shards written now; the others were there
};

// Everything that decides the numbers: a cache of another key is not used.
std::string cache_key(const CacheOptions& options, const TrainingWindows& windows,
                      const std::string& teacher);

// Writes the shards that steps [0, steps) of `batch` windows need and that are not there. A killed
// run goes on with the shard that it was at. Throws BadInput for a shard of another key.
inline constexpr std::int64_t kShardWindows = 32;
CacheReport write_cache(const std::filesystem::path& folder, const CacheOptions& options,
                        const TrainingWindows& windows, std::int64_t steps, std::int64_t batch,
                        const std::string& key, LiveTeacher& teacher, const RunContext& context);

class CachedTeacher {
 public:
  CachedTeacher(std::filesystem::path folder, CacheOptions options, std::string key,
                std::int64_t length);

  // Reads the rows of the batch's windows.
  void read(const Batch& batch);

  const at::Tensor& ids() const { return ids_; }                      // [B * T, K] int32, -1 unused
  const at::Tensor& probabilities() const { return probabilities_; }  // [B * T, K]
  bool tail() const { return options_.kind == "top_k"; }

 private:
  void read_window(std::int64_t window, std::int32_t* ids, float* probabilities);

  std::filesystem::path folder_;
  CacheOptions options_;
  std::string key_;
  std::int64_t length_;
  at::Tensor ids_, probabilities_;
};

}  // namespace attar
