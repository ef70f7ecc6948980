// Exporting a model: options, what an export would write, what it wrote. One function for all
// formats; each format's own pair does the work. An export holds one block in memory at a time and
// its result appears under its name only when it is whole.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/model.h"

namespace attar {

enum class ExportFormat { kHuggingFace, kCompressedTensors, kGguf, kPeft };
std::string_view to_string(
    ExportFormat format);  // "huggingface", "compressed-tensors", "gguf", "peft"
ExportFormat export_format_from(std::string_view name);  // UsageError names the known ones

struct ExportOptions {
  ExportFormat format = ExportFormat::kHuggingFace;

  // huggingface, compressed-tensors: type of everything stored as plain values, "f16" | "bf16" |
  // "f32"; empty: the source's own ("f16" for a quantized one). peft: of the factors; empty: "f32".
  // gguf: type of the linear layers, "F32" | "F16" | "BF16", a block type or a stock mixture of
  // llama.cpp by its name (gguf_mixture.h: "Q4_0", "Q5_K_M", "IQ4_NL", ...; rows that blocks of 256
  // do not divide fall back and the notes say so), or "auto" (also empty): for each layer the
  // smallest that keeps its codes, F16 for plain values. Upper and lower case are alike.
  std::string type;

  // gguf: type of the embedding and of a head of its own. Empty: the codes of the source where a
  // type keeps them; else as the stock mixture has it (a head, also a tied one: Q6_K, or Q8_0 where
  // 256 does not divide it), as `type` for plain types, and F16 for "auto".
  std::string embedding_type;

  // gguf: an importance matrix of llama.cpp (imatrix.h). What is rounded here is rounded for the
  // least error weighted by it; codes that a pass has chosen stay. Empty: by the type's reference
  // quantizer.
  std::string importance;

  // gguf: let the reference quantizer of `type` round again what a pass has quantized on a grid
  // that the type cannot hold. Otherwise, and where activations are rounded, this is DoesNotFit.
  bool requantize = false;

  bool two_bits = false;  // compressed-tensors: allow 2 bits, which few programs read
  bool replace = false;   // an existing file or folder gives way
  std::uint64_t max_shard_bytes = 5'000'000'000;  // safetensors
  std::string name;                               // general.name of a GGUF; empty: of the source
};

// One tensor, planned or written.
struct TensorExport {
  std::string tensor;  // name in the exported file
  std::string layer;   // "model.layers.3.mlp.down_proj", "model.embed_tokens", ...; empty: a norm
  std::string type;    // "Q4_1", "F16", "W4 g128 asymmetric", ...
  std::string how;     // "kept codes", "kept codes, minima rounded", "reference quantizer",
                       // "weighted quantizer", "plain values"
  bool rounds_input = false;  // QuantScheme::activation_bits
  std::uint64_t bytes = 0;
  // Largest |exported value - the model's value|, the model's weight dequantized in float32. Not
  // known in a plan (0).
  double max_difference = 0;

  // Whether the file rounds it by itself to fewer bits than 16, which no pass has seen.
  bool rounds() const { return how.ends_with(" quantizer"); }
};

// What check_export found; nothing was computed.
struct ExportPlan {
  std::vector<TensorExport> tensors;
  std::uint64_t bytes = 0;  // of all files with weights, headers included
  std::uint64_t largest_tensor = 0;
  std::vector<std::string> notes;

  bool rounds() const { return std::ranges::any_of(tensors, &TensorExport::rounds); }
};

struct ExportReport {
  std::filesystem::path path;
  std::vector<std::filesystem::path> files;  // everything written, sorted
  std::vector<TensorExport> tensors;
  std::uint64_t bytes = 0;  // of the files with weights
  double max_rounding = 0;  // largest difference of a tensor stored as plain values
  std::string max_rounding_tensor;
  std::vector<std::string> notes;  // one sentence each: what a reader of the file should know

  bool rounds() const { return std::ranges::any_of(tensors, &TensorExport::rounds); }
};

// What passes will have made of the layers they change: a grid, or plain values (empty). By
// layer_name(); a layer that is not named stays as the source has it.
using PlannedLayers = std::map<std::string, std::optional<QuantScheme>>;

// The model that passes will leave.
struct PlannedModel {
  ModelConfig config;
  PlannedLayers layers;
  // Of these, those that stay as the source has them but for a low-rank term: its values.
  std::map<std::string, std::int64_t> terms = {};
  // Of these, those that will be on one of several grids, which the run finds.
  std::map<std::string, std::vector<QuantScheme>> candidates = {};
  // Of these, plain ones that round what they read: a term beside codes that do.
  std::set<std::string> rounds_input = {};
  bool rows_go = false;  // of embedding and head
};

// Says from headers what an export would write, and finds what the format cannot hold. Throws
// DoesNotFit naming the layer, the rule and the remedy; UsageError for an unknown type; BadInput
// for a tokenizer that cannot be carried over.
ExportPlan check_export(const ModelSource& source, const PlannedModel& planned,
                        const ExportOptions& options);

// Writes the model as it is now: a folder, or one *.gguf file. Throws as check_export does,
// NumericRefusal when a value does not fit the type (an infinity in float16), IoError.
ExportReport export_model(const Model& model, const std::filesystem::path& out,
                          const ExportOptions& options);

}  // namespace attar
