// Hugging Face folders: config.json and safetensors, one file or shards.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "compress/formats/export.h"
#include "compress/formats/file_source.h"

namespace attar {

class HuggingFaceSource : public FileSource {
 public:
  virtual const std::filesystem::path& folder() const = 0;
  virtual const nlohmann::json& config_json() const = 0;
};

// Opens a folder; weights stay mapped and are handed out as read-only views (copied where they are
// not aligned to their type). F16, BF16 and F32; layers of a compressed-tensors folder as
// QuantizedWeight (compressed_tensors.h says which).
//
// Throws BadInput for a tensor that is missing, is not asked for by config.json, or has another
// shape or type than it says. Stored buffers without weights and a lm_head.weight
// beside a tied embedding are tolerated.
std::shared_ptr<const HuggingFaceSource> open_huggingface(const std::filesystem::path& folder);

// Formats kHuggingFace and kCompressedTensors of export.h. config.json is the source's with what
// changed, or synthesized from a GGUF; companion files are copied byte for byte, or synthesized
// from the vocabulary of a GGUF.
ExportPlan check_huggingface(const ModelSource& source, const PlannedModel& planned,
                             const ExportOptions& options);
ExportReport export_huggingface(const Model& model, const std::filesystem::path& folder,
                                const ExportOptions& options);

}  // namespace attar
