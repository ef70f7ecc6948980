// GGUF models: F32, F16, BF16 as plain values, block types as QuantizedWeight (gguf_blocks.h). q
// and k rows are put back into the order of Hugging Face.
#pragma once

#include <filesystem>
#include <memory>

#include "compress/formats/export.h"
#include "compress/formats/file_source.h"
#include "compress/io/gguf_file.h"

namespace attar {

class GgufSource : public FileSource {
 public:
  virtual const io::GgufFile& file() const = 0;
};

// Throws BadInput for another architecture, a missing, superfluous or misshapen tensor, and tensor
// types that attar does not read (tensor, type, what is supported).
std::shared_ptr<const GgufSource> open_gguf(const std::filesystem::path& path);

// Format kGguf of export.h.
ExportPlan check_gguf(const ModelSource& source, const PlannedModel& planned,
                      const ExportOptions& options);
ExportReport export_gguf(const Model& model, const std::filesystem::path& path,
                         const ExportOptions& options);

}  // namespace attar
