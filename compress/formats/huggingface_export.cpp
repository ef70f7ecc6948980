#include <ATen/ops/zeros.h>

#include <set>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"
#include "compress/formats/compressed_floats.h"
#include "compress/formats/gguf_model.h"
#include "compress/formats/huggingface.h"
#include "compress/formats/huggingface_layout.h"
#include "compress/formats/huggingface_tokenizer.h"
#include "compress/formats/model_file.h"
#include "compress/formats/tensor_view.h"
#include "compress/formats/weight_rows.h"
#include "compress/io/json.h"
#include "compress/tokenize/trim.h"

namespace attar {
namespace {

namespace fs = std::filesystem;

TensorExport entry_for(const ExportedPart& part) {
  TensorExport entry;
  entry.tensor = part.tensors.front().name;
  entry.layer = part.layer;
  entry.type = part.scheme ? describe(*part.scheme)
                           : std::string(io::safetensors_name(part.tensors.front().type));
  entry.how = part.scheme ? "kept codes" : "plain values";
  entry.rounds_input = part.scheme && part.scheme->token_grid();
  entry.bytes = part.bytes();
  return entry;
}

std::uint64_t shard_bytes(const HuggingFaceLayout& layout, std::size_t shard) {
  std::vector<io::TensorPlan> plans;
  for (std::size_t u = layout.shards[shard]; u < layout.shard_end(shard); ++u) {
    for (const ExportedPart& part : layout.units[u].parts) {
      plans.insert(plans.end(), part.tensors.begin(), part.tensors.end());
    }
  }
  return io::safetensors_file_bytes(plans);
}

// Writes the units of a layout one after the other.
class WeightWriter {
 public:
  WeightWriter(const Model& model, const HuggingFaceLayout& layout, const fs::path& folder,
               ExportReport& report)
      : model_(model), layout_(layout), folder_(folder), report_(report) {}

  void write() {
    nlohmann::ordered_json places = nlohmann::ordered_json::object();
    for (std::size_t shard = 0; shard < layout_.shards.size(); ++shard) {
      const std::string name = layout_.shard_name(shard);
      for (const io::TensorPlan& plan : write_shard(shard, folder_ / name)) {
        places[plan.name] = name;
      }
      report_.bytes += fs::file_size(folder_ / name);
    }
    if (layout_.shards.size() == 1) return;
    const nlohmann::ordered_json index = {{"metadata", {{"total_size", layout_.tensor_bytes}}},
                                          {"weight_map", places}};
    io::write_json(folder_ / "model.safetensors.index.json", index);
  }

 private:
  std::vector<io::TensorPlan> write_shard(std::size_t shard, const fs::path& path) {
    std::vector<io::TensorPlan> plans;
    for (std::size_t u = layout_.shards[shard]; u < layout_.shard_end(shard); ++u) {
      for (const ExportedPart& part : layout_.units[u].parts) {
        plans.insert(plans.end(), part.tensors.begin(), part.tensors.end());
      }
    }
    writer_ = std::make_unique<io::SafetensorsWriter>(path, plans);
    for (std::size_t u = layout_.shards[shard]; u < layout_.shard_end(shard); ++u) write_unit(u);
    writer_->finish();
    return plans;
  }

  void write_unit(std::size_t u) {
    const std::vector<ExportedPart>& parts = layout_.units[u].parts;
    if (u == 0) return weight(parts.front(), model_.embedding());
    if (u + 1 == layout_.units.size()) {
      vector(parts.front(), model_.final_norm());
      if (parts.size() > 1) weight(parts[1], model_.head());
      return;
    }
    const auto index = static_cast<std::int64_t>(u) - 1;
    const Block block = model_.block(index);
    std::size_t next = 0;
    for (const at::Tensor& norm : block.norms) {
      if (norm.defined()) vector(parts[next++], norm);
    }
    for (const Role role : kRoles) {
      weight(parts[next++], block[role].weight);
      if (next == parts.size() || !parts[next].tensors.front().name.ends_with(".bias")) continue;
      const at::Tensor& bias = block[role].bias;
      vector(parts[next], bias.defined() ? bias : at::zeros(parts[next].tensors[0].shape));
      ++next;
    }
    model_.done_with_block(index);
  }

  void vector(const ExportedPart& part, const at::Tensor& values) {
    weight(part, DenseWeight{values.unsqueeze(0)});
  }

  void weight(const ExportedPart& part, const Weight& weight) {
    TensorExport entry = entry_for(part);
    if (part.scheme) {
      packed(part, std::get<QuantizedWeight>(weight));
    } else {
      entry.max_difference = plain(part.tensors.front(), weight);
    }
    add(report_, std::move(entry));
  }

  void packed(const ExportedPart& part, const QuantizedWeight& weight) {
    const PackedWeight packed = weight.scheme.floating() ? pack_floats(weight) : pack(weight);
    const at::Tensor* tensors[] = {&packed.packed, &packed.scale, &packed.shape,
                                   &packed.zero_point};
    for (std::size_t i = 0; i < part.tensors.size(); ++i) {
      writer_->append(part.tensors[i].name, bytes_of(*tensors[i]));
    }
  }

  // Rounds to the type of the plan, some rows at a time; returns the largest difference.
  double plain(const io::TensorPlan& plan, const Weight& weight) {
    const auto [out, in] = shape_of(weight);
    const at::ScalarType type = layout_.dense_type;
    const auto* as_is = std::get_if<DenseWeight>(&weight);
    const bool same = as_is != nullptr && as_is->values.scalar_type() == type;
    double largest = 0;
    for (std::int64_t row = 0; row < out; row += rows_at_once(in)) {
      const std::int64_t end = std::min(out, row + rows_at_once(in));
      if (same) {
        const at::Tensor rows = as_is->values.slice(0, row, end).contiguous();
        writer_->append(plan.name, bytes_of(rows));
        if (file_ != nullptr) file_->done_with(rows);
        continue;
      }
      const at::Tensor values = dense_rows(weight, row, end);
      const at::Tensor rounded = values.to(type).contiguous();
      largest = std::max(
          largest, largest_difference(rounded.to(at::kFloat), values, plan.name, long_name(type)));
      writer_->append(plan.name, bytes_of(rounded));
    }
    return largest;
  }

  const Model& model_;
  const HuggingFaceLayout& layout_;
  const fs::path& folder_;
  ExportReport& report_;
  const FileSource* file_ = dynamic_cast<const FileSource*>(&model_.source());
  std::unique_ptr<io::SafetensorsWriter> writer_;
};

Biases biases_in(const HuggingFaceLayout& layout) {
  std::set<std::string> names;
  for (const ExportedPart& part : layout.units.at(1).parts) names.insert(part.tensors[0].name);
  Biases biases{};
  for (const Role role : kRoles) {
    biases[index_of(role)] = names.contains(layer_name(0, role) + ".bias");
  }
  return biases;
}

// Lists with an entry a layer. All entries are equal in the families that attar reads.
void follow_depth(nlohmann::ordered_json& config, std::size_t layers) {
  const auto types = config.find("layer_types");
  if (types != config.end() && types->is_array()) {
    while (types->size() > layers) types->erase(types->size() - 1);
  }
  const auto windowed = config.find("max_window_layers");
  if (windowed != config.end() && windowed->is_number_integer()) {
    *windowed = std::min(windowed->get<std::int64_t>(), static_cast<std::int64_t>(layers));
  }
}

// The source's own with what changed, or a new one.
nlohmann::ordered_json config_for(const ModelSource& source, const ModelConfig& model,
                                  KeptTokens kept, const HuggingFaceLayout& layout) {
  const std::string_view type = long_name(layout.dense_type);
  nlohmann::ordered_json config;
  if (const auto* folder = dynamic_cast<const HuggingFaceSource*>(&source)) {
    config = nlohmann::ordered_json::parse(io::read_file(folder->folder() / "config.json"));
    config.erase("quantization_config");
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (config.contains(key)) config[key] = type;
    }
    if (!config.contains("torch_dtype") && !config.contains("dtype")) config["torch_dtype"] = type;
    const nlohmann::ordered_json was = config_to_json(source.config(), biases_in(layout), type);
    const nlohmann::ordered_json is = config_to_json(model, biases_in(layout), type);
    bool reshaped = false;
    renumber_ids(config, kept);
    for (const auto& [key, value] : is.items()) {
      if (was.contains(key) && was.at(key) == value) continue;
      if (key.ends_with("_token_id")) continue;  // there may be several
      config[key] = value;
      reshaped = true;
    }
    if (reshaped) {
      config["head_dim"] = model.head_dim;  // readers guess it from widths that have changed
      follow_depth(config, static_cast<std::size_t>(model.layers));
    }
  } else {
    config = config_to_json(model, biases_in(layout), type);
  }
  if (!layout.packed.empty()) {
    config["quantization_config"] = quantization_config(layout.packed, layout.dense_modules);
  }
  return config;
}

void write_companions(const Model& model, const fs::path& folder, ExportReport& report) {
  const ModelSource& source = model.source();
  const KeptTokens kept = model.source_tokens();
  if (const auto* from = dynamic_cast<const HuggingFaceSource*>(&source)) {
    for (const fs::path& file : companion_files(from->folder())) {
      copy_trimmed(file, folder, kept);
    }
    return;
  }
  const auto* gguf = dynamic_cast<const GgufSource*>(&source);
  if (gguf == nullptr || gguf->file().string_or("tokenizer.ggml.model", "none") == "none") {
    report.notes.push_back("the source has no tokenizer, so the folder has none");
  } else {
    for (const std::string& note : write_tokenizer_of_gguf(gguf->file(), folder, kept)) {
      report.notes.push_back(note);
    }
  }
  nlohmann::ordered_json generation = nlohmann::ordered_json::object();
  if (model.config().bos) generation["bos_token_id"] = *model.config().bos;
  if (model.config().eos) generation["eos_token_id"] = *model.config().eos;
  io::write_json(folder / "generation_config.json", generation);
}

void remove_contents(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

ExportPlan check_huggingface(const ModelSource& source, const PlannedModel& planned,
                             const ExportOptions& options) {
  const HuggingFaceLayout layout =
      huggingface_layout(source, planned_states(source, planned), options);
  config_for(source, planned.config, {}, layout);
  ExportPlan plan;
  plan.notes = layout.notes;
  for (const ExportedUnit& unit : layout.units) {
    for (const ExportedPart& part : unit.parts) add(plan, entry_for(part));
  }
  for (std::size_t shard = 0; shard < layout.shards.size(); ++shard) {
    plan.bytes += shard_bytes(layout, shard);
  }
  return plan;
}

ExportReport export_huggingface(const Model& model, const fs::path& folder,
                                const ExportOptions& options) {
  const HuggingFaceLayout layout =
      huggingface_layout(model.source(), current_states(model), options);
  const nlohmann::ordered_json config =
      config_for(model.source(), model.config(), model.source_tokens(), layout);
  ExportReport report;
  report.path = folder;
  report.notes = layout.notes;
  io::OutputFolder output(folder, "export", replaceable_models(options));
  try {
    if (output.resumed()) remove_contents(output.work());
    WeightWriter(model, layout, output.work(), report).write();
    io::write_json(output.work() / "config.json", config);
    write_companions(model, output.work(), report);
  } catch (...) {
    output.discard();
    throw;
  }
  output.commit();
  report.files = files_in(folder);
  return report;
}

}  // namespace attar
