// A model source that can say from headers alone what its file holds.
#pragma once

#include <optional>
#include <string>

#include "compress/core/model.h"

namespace attar {

struct StoredWeight {
  std::string tensor;                     // name in the file
  std::string type;                       // as the file calls it: "BF16", "Q4_1", "pack-quantized"
  std::optional<QuantScheme> scheme;      // the grid; empty for plain values
  at::ScalarType dense_type = at::kHalf;  // of plain values
  std::int64_t bytes = 0;                 // in the file, without the bias
  bool bias = false;
  bool has_term = false;       // an adapter's, beside it
  bool codes_beneath = false;  // the term stands beside codes
};

class FileSource : public ModelSource {
 public:
  virtual StoredWeight stored(std::int64_t block, Role role) const = 0;
  // What of the files is left out, a sentence each.
  virtual std::vector<std::string> left_out() const { return {}; }
  virtual StoredWeight stored_embedding() const = 0;
  virtual StoredWeight stored_head() const = 0;  // of the embedding when tied
  // Lets the system drop the pages that hold `part`, contiguous; nothing where it is no view of the
  // file.
  virtual void done_with(const at::Tensor& part) const = 0;
};

// The same of any source; one that is no FileSource is read.
StoredWeight stored_weight(const ModelSource& source, std::int64_t block, Role role);
StoredWeight stored_embedding(const ModelSource& source);
StoredWeight stored_head(const ModelSource& source);

}  // namespace attar
