// Statistics of calibration activations, kept in HDF5: collected once and kept.
//
// One group an entry, named by its key: the hash of everything that the numbers depend on (model
// bytes, token ids, all upstream tensors), so that an entry can be missing but never stale. The
// Gram matrix is kept in float64 as its upper triangle; what comes back is what went in, to the
// bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "compress/linalg/gram.h"

namespace attar {

struct StatisticsKey {
  std::string context;  // hash of model and upstream tensors, without the text
  std::string tokens;   // hash of the token ids
  std::string name() const { return context + "-" + tokens; }
};

class StatisticsStore {
 public:
  // Opens or creates. A file torn by a crash is replaced by an empty one (`rebuilt()` tells).
  explicit StatisticsStore(std::filesystem::path path);

  std::optional<linalg::GramStatistics> find(const StatisticsKey& key) const;
  void put(const StatisticsKey& key, const linalg::GramStatistics& statistics);
  bool rebuilt() const { return rebuilt_; }
  std::int64_t entries() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool rebuilt_ = false;
};

// Entries that stand in both stores under the same context become one entry of the whole text
// (`whole_tokens` is its hash). Returns how many were merged.
std::int64_t merge_stores(const StatisticsStore& first, const std::string& first_tokens,
                          const StatisticsStore& second, const std::string& second_tokens,
                          StatisticsStore& whole, const std::string& whole_tokens);

}  // namespace attar
