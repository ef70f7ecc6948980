// Which tensors a safetensors export holds, and in which shard.
#pragma once

#include <string>
#include <vector>

#include "compress/formats/export_layout.h"
#include "compress/io/safetensors_file.h"

namespace attar {

// One weight, norm or bias of the model and the tensors it becomes.
struct ExportedPart {
  std::vector<io::TensorPlan> tensors;
  std::string layer;                  // as in TensorExport; empty: a norm or bias
  std::optional<QuantScheme> scheme;  // packed codes; empty: plain values
  std::uint64_t bytes() const;
};

// What is written together: the embedding, a block, the final norm with the head.
struct ExportedUnit {
  std::vector<ExportedPart> parts;
  std::uint64_t bytes() const;
};

struct HuggingFaceLayout {
  at::ScalarType dense_type = at::kHalf;
  std::vector<ExportedUnit> units;  // embedding, blocks 0 .., final norm and head
  // First unit of each shard. Units never straddle shards.
  std::vector<std::size_t> shards;
  std::map<std::string, QuantScheme> packed;  // module -> grid
  std::vector<std::string> dense_modules;     // Linear modules with plain values; compressed only
  std::uint64_t tensor_bytes = 0;
  std::vector<std::string> notes;

  std::string shard_name(std::size_t shard) const;
  std::size_t shard_end(std::size_t shard) const;  // one past its last unit
};

// Throws DoesNotFit, naming the layer, for a grid that compressed-tensors cannot hold.
HuggingFaceLayout huggingface_layout(const ModelSource& source, const ModelStates& states,
                                     const ExportOptions& options);

}  // namespace attar
