#include "compress/formats/export.h"

#include "compress/core/errors.h"
#include "compress/formats/adapter.h"
#include "compress/formats/gguf_model.h"
#include "compress/formats/huggingface.h"

namespace attar {

std::string_view to_string(ExportFormat format) {
  constexpr std::array<std::string_view, 4> kNames = {"huggingface", "compressed-tensors", "gguf",
                                                      "peft"};
  return kNames[static_cast<std::size_t>(format)];
}

ExportFormat export_format_from(std::string_view name) {
  for (const ExportFormat format : {ExportFormat::kHuggingFace, ExportFormat::kCompressedTensors,
                                    ExportFormat::kGguf, ExportFormat::kPeft}) {
    if (to_string(format) == name) return format;
  }
  throw UsageError(message("export", "format '", name,
                           "' is unknown; known: huggingface, compressed-tensors, gguf, peft"));
}

ExportPlan check_export(const ModelSource& source, const PlannedModel& planned,
                        const ExportOptions& options) {
  if (options.format == ExportFormat::kGguf) return check_gguf(source, planned, options);
  if (options.format == ExportFormat::kPeft) return check_adapter(source, planned, options);
  return check_huggingface(source, planned, options);
}

ExportReport export_model(const Model& model, const std::filesystem::path& out,
                          const ExportOptions& options) {
  if (options.format == ExportFormat::kGguf) return export_gguf(model, out, options);
  if (options.format == ExportFormat::kPeft) return export_adapter(model, out, options);
  return export_huggingface(model, out, options);
}

}  // namespace attar
