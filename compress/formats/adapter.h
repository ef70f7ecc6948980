// Low-rank terms beside an unchanged model, as PEFT keeps them: a folder with adapter_config.json
// and adapter_model.safetensors, y = W x + (alpha / r) B (A x).
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "compress/formats/huggingface.h"

namespace attar {

inline constexpr std::string_view kAdapterConfig = "adapter_config.json";

// The model that base_model_name_or_path names (a path, absolute or from the adapter's folder),
// with the terms beside its layers. Throws IoError when the base is not there, BadInput for a kind
// of adapter that attar does not know, a module that is no linear layer of the base, a shape that
// does not fit.
std::shared_ptr<const HuggingFaceSource> open_adapter(const std::filesystem::path& folder);

// The base that the configuration names, not opened.
std::filesystem::path adapter_base(const std::filesystem::path& folder);

// Format kPeft of export.h: the terms alone. Throws DoesNotFit, naming the layer, when anything
// else than terms differs from the source, and when there are none.
ExportPlan check_adapter(const ModelSource& source, const PlannedModel& planned,
                         const ExportOptions& options);
ExportReport export_adapter(const Model& model, const std::filesystem::path& folder,
                            const ExportOptions& options);

}  // namespace attar
