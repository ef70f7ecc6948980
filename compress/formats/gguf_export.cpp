#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include "compress/core/errors.h"
#include "compress/families/family.h"
#include "compress/formats/gguf_encode.h"
#include "compress/formats/gguf_layout.h"
#include "compress/formats/gguf_model.h"
#include "compress/formats/gguf_tokenizer.h"
#include "compress/formats/huggingface.h"
#include "compress/formats/model_file.h"
#include "compress/formats/tensor_view.h"
#include "compress/formats/weight_rows.h"
#include "compress/io/imatrix.h"

namespace attar {
namespace {

namespace fs = std::filesystem;
using io::GgmlType;

std::string how(const GgufPart& part) {
  if (io::ggml_type_info(part.type).elements == 1) return "plain values";
  if (!part.keep_codes) return "reference quantizer";
  return part.fit == Fit::kExact ? "kept codes" : "kept codes, minima rounded";
}

TensorExport entry_for(const GgufPart& part) {
  TensorExport entry;
  entry.tensor = part.name;
  entry.layer = part.layer;
  entry.type = io::ggml_type_info(part.type).name;
  entry.how = how(part);
  entry.bytes = part.bytes();
  return entry;
}

void set_general(io::GgufWriter& writer, const ModelSource& source, const GgufLayout& layout,
                 const ExportOptions& options) {
  const auto* gguf = dynamic_cast<const GgufSource*>(&source);
  writer.set_string("general.architecture", layout.architecture.name);
  writer.set_string("general.type", "model");
  std::string name = options.name;
  if (name.empty() && gguf != nullptr) name = gguf->file().string_or("general.name", "");
  if (name.empty()) name = fs::absolute(source.path()).lexically_normal().filename().string();
  if (name.empty()) name = source.config().family;
  writer.set_string("general.name", name);
  if (gguf != nullptr) {
    const std::set<std::string_view> told = {"general.architecture",
                                             "general.type",
                                             "general.name",
                                             "general.file_type",
                                             "general.quantization_version",
                                             "general.alignment",
                                             "general.quantized_by"};
    for (const io::GgufEntry& entry : gguf->file().entries()) {
      if (entry.key.starts_with("general.") && !told.contains(entry.key)) writer.set_entry(entry);
    }
  }
  writer.set_u32("general.file_type", layout.file_type);
  writer.set_u32("general.quantization_version", 2);
}

void set_architecture(io::GgufWriter& writer, const ModelConfig& config,
                      const GgufArchitecture& architecture) {
  const std::string prefix = std::string(architecture.name) + ".";
  const auto set = [&](const char* key, std::int64_t value) {
    writer.set_u32(prefix + key, static_cast<std::uint32_t>(value));
  };
  set("block_count", config.layers);
  set("context_length", config.max_positions);
  set("embedding_length", config.hidden);
  const auto set_widths = [&](const char* key, std::int64_t BlockWidths::*width) {
    if (!architecture.uneven) return set(key, config.widths_of(0).*width);
    std::vector<std::uint32_t> widths;
    for (std::int64_t i = 0; i < config.layers; ++i) {
      widths.push_back(static_cast<std::uint32_t>(config.widths_of(i).*width));
    }
    writer.set_u32s(prefix + key, widths);
  };
  set_widths("feed_forward_length", &BlockWidths::ffn);
  set_widths("attention.head_count", &BlockWidths::heads);
  set_widths("attention.head_count_kv", &BlockWidths::kv_heads);
  set("attention.key_length", config.head_dim);
  set("attention.value_length", config.head_dim);
  writer.set_f32(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_eps));
  set("rope.dimension_count", config.head_dim);
  writer.set_f32(prefix + "rope.freq_base", static_cast<float>(config.rope.theta));
  if (config.rope.scaling == RopeScaling::kLinear) {
    writer.set_string(prefix + "rope.scaling.type", "linear");
    writer.set_f32(prefix + "rope.scaling.factor", static_cast<float>(config.rope.factor));
  }
  set("vocab_size", config.vocabulary);
}

// Returns notes.
std::vector<std::string> set_tokenizer(io::GgufWriter& writer, const ModelSource& source,
                                       const ModelConfig& config, KeptTokens kept) {
  if (const auto* gguf = dynamic_cast<const GgufSource*>(&source)) {
    write_vocabulary(writer, gguf->file(), kept);
    if (gguf->file().has("tokenizer.ggml.model")) return {};
  } else if (const auto* folder = dynamic_cast<const HuggingFaceSource*>(&source)) {
    if (has_tokenizer(folder->folder())) {
      const GgufVocabulary vocabulary = read_gguf_vocabulary(
          folder->folder(), kept.empty() ? source.config().vocabulary : std::ssize(kept), kept);
      write_vocabulary(writer, vocabulary);
      return vocabulary.notes;
    }
  }
  writer.set_string("tokenizer.ggml.model", "none");
  if (config.bos)
    writer.set_u32("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(*config.bos));
  if (config.eos)
    writer.set_u32("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(*config.eos));
  return {
      "the source has no tokenizer, so the file has none: llama.cpp can compute with it, but "
      "not read or write text"};
}

// A writer with all metadata and tensor infos, nothing written yet.
std::unique_ptr<io::GgufWriter> prepare(const ModelSource& source, const ModelConfig& config,
                                        KeptTokens kept, const GgufLayout& layout,
                                        const ExportOptions& options, const fs::path& path,
                                        std::vector<std::string>& notes) {
  auto writer = std::make_unique<io::GgufWriter>(path);
  set_general(*writer, source, layout, options);
  set_architecture(*writer, config, layout.architecture);
  for (std::string& note : set_tokenizer(*writer, source, config, kept))
    notes.push_back(std::move(note));
  for (const auto& unit : layout.units) {
    for (const GgufPart& part : unit) writer->declare(part.name, part.type, part.ne);
  }
  return writer;
}

class TensorWriter {
 public:
  TensorWriter(const Model& model, const GgufLayout& layout, const ExportOptions& options,
               io::GgufWriter& writer, ExportReport& report)
      : model_(model),
        config_(model.config()),
        layout_(layout),
        options_(options),
        writer_(writer),
        report_(report) {
    if (!options.importance.empty()) {
      importance_ = io::read_importance_matrix(options.importance);
    }
  }

  void write() {
    weight(layout_.units.front().front(), model_.embedding());
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      block(layout_.units[static_cast<std::size_t>(i) + 1], model_.block(i));
      model_.done_with_block(i);
    }
    const std::vector<GgufPart>& last = layout_.units.back();
    vector(last.front(), model_.final_norm());
    for (const GgufPart& part : last) {
      if (part.layer == "lm_head") weight(part, model_.head());
      if (part.name == "rope_freqs.weight") {
        write_part(part, std::as_bytes(std::span(layout_.rope_factors)), 0);
      }
    }
  }

 private:
  void block(const std::vector<GgufPart>& parts, const Block& block) {
    std::size_t next = 0;
    for (const at::Tensor& norm : block.norms) {
      if (norm.defined()) vector(parts[next++], norm);
    }
    const BlockWidths widths = widths_of(block, config_.head_dim);
    for (const Role role : roles_of(block)) {
      const Linear& linear = block[role];
      const std::int64_t heads = interleaved_heads(widths, role);
      const at::Tensor order = heads > 0 ? interleaved(heads, config_.head_dim) : at::Tensor();
      weight(parts[next++], linear.weight, order);
      if (!linear.bias.defined()) continue;
      vector(parts[next++], order.defined() ? linear.bias.index_select(0, order) : linear.bias);
    }
  }

  std::int64_t interleaved_heads(const BlockWidths& widths, Role role) const {
    if (!layout_.architecture.interleaves_query_and_key) return 0;
    if (role == Role::kQuery) return widths.heads;
    return role == Role::kKey ? widths.kv_heads : 0;
  }

  void vector(const GgufPart& part, const at::Tensor& values) {
    const at::Tensor plain = values.to(at::kFloat).contiguous();
    write_part(part, bytes_of(plain), 0);
  }

  // `order`: of the rows in the file; undefined: as they are.
  void weight(const GgufPart& part, const Weight& weight, const at::Tensor& order = {}) {
    const auto* plain = std::get_if<DenseWeight>(&weight);
    if (plain != nullptr && !part.keep_codes) return encoded(part, *plain, order);
    if (order.defined()) return this->weight(part, select_rows(weight, order));
    if (part.keep_codes) {
      const auto& quantized = std::get<QuantizedWeight>(weight);
      if (const auto bytes = keep_codes(part.type, quantized)) {
        const double rounded = part.fit == Fit::kExact ? 0 : difference(part, weight, *bytes);
        return write_part(part, *bytes, rounded);
      }
      require<DoesNotFit>(!part.by_pass || options_.requantize, "export gguf", "layer ", part.layer,
                          ": a scale is beyond float16, so ", io::ggml_type_info(part.type).name,
                          " cannot keep the codes; choose type: F16 or requantize: true");
    }
    encoded(part, weight);
  }

  // Converts some rows at a time.
  void encoded(const GgufPart& part, const Weight& weight) {
    const auto [out, in] = shape_of(weight);
    TensorExport entry = entry_for(part);
    if (entry.how.starts_with("kept")) entry.how = "reference quantizer";
    const at::Tensor importance = importance_of(part);
    if (importance.defined()) entry.how = "weighted quantizer";
    for (std::int64_t row = 0; row < out; row += rows_at_once(in)) {
      const std::int64_t end = std::min(out, row + rows_at_once(in));
      const at::Tensor values = dense_rows(weight, row, end);
      const double difference =
          importance.defined() ? weighted(part, values, row, importance) : piece(part, values, row);
      entry.max_difference = std::max(entry.max_difference, difference);
    }
    add(report_, std::move(entry));
  }

  // Plain values where they lie, which may be in a mapped file.
  void encoded(const GgufPart& part, const DenseWeight& weight, const at::Tensor& order) {
    if (importance_of(part).defined() || !weight.values.is_contiguous()) {
      return encoded(part, order.defined() ? select_rows(weight, order) : Weight(weight));
    }
    TensorExport entry = entry_for(part);
    entry.max_difference = piece(part, weight.values, 0, order);
    add(report_, std::move(entry));
  }

  // The rows of `part` from `first` on.
  double piece(const GgufPart& part, const at::Tensor& values, std::int64_t first,
               const at::Tensor& order = {}) {
    writer_.begin();
    const auto* file = dynamic_cast<const FileSource*>(&model_.source());
    const std::uint64_t stride = part.bytes() / static_cast<std::uint64_t>(part.ne[1]);
    const double difference = encode_rows(
        {.type = part.type,
         .values = values,
         .order = order,
         .write =
             [&](std::int64_t row, std::span<const std::byte> bytes) {
               writer_.write_at(part.name, static_cast<std::uint64_t>(first + row) * stride, bytes);
             },
         .done =
             [&](const at::Tensor& rows) {
               if (file != nullptr) file->done_with(rows);
             }});
    refuse_if_not_finite(difference, values, part.name, io::ggml_type_info(part.type).name);
    return difference;
  }

  double weighted(const GgufPart& part, const at::Tensor& values, std::int64_t first,
                  const at::Tensor& importance) {
    writer_.begin();
    const std::vector<std::byte> bytes = encode_weighted(part.type, values, importance);
    const std::uint64_t stride = part.bytes() / static_cast<std::uint64_t>(part.ne[1]);
    writer_.write_at(part.name, static_cast<std::uint64_t>(first) * stride, bytes);
    return largest_difference(decode(part.type, bytes, values.size(0), values.size(1)), values,
                              part.name, io::ggml_type_info(part.type).name);
  }

  // [I] double, or undefined.
  at::Tensor importance_of(const GgufPart& part) const {
    const auto found = importance_.means.find(part.name);
    if (found == importance_.means.end() || !is_block_type(part.type)) return {};
    const auto columns = static_cast<std::int64_t>(found->second.size());
    require(columns == part.ne[0], options_.importance, part.name, " has ", columns,
            " columns, the model's layer has ", part.ne[0], "; it is of another model");
    at::Tensor weights = at::empty({columns}, at::kDouble);
    std::copy(found->second.begin(), found->second.end(), weights.mutable_data_ptr<double>());
    return weights;
  }

  double difference(const GgufPart& part, const Weight& weight,
                    std::span<const std::byte> bytes) const {
    const auto [out, in] = shape_of(weight);
    return largest_difference(decode(part.type, bytes, out, in), dense_rows(weight, 0, out),
                              part.name, io::ggml_type_info(part.type).name);
  }

  void write_part(const GgufPart& part, std::span<const std::byte> bytes, double difference) {
    writer_.append(part.name, bytes);
    TensorExport entry = entry_for(part);
    entry.max_difference = difference;
    add(report_, std::move(entry));
  }

  const Model& model_;
  const ModelConfig& config_;
  const GgufLayout& layout_;
  const ExportOptions& options_;
  io::GgufWriter& writer_;
  ExportReport& report_;
  io::ImportanceMatrix importance_;
};

bool begins_as_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return std::string_view(magic.data(), magic.size()) == "GGUF";
}

}  // namespace

ExportPlan check_gguf(const ModelSource& source, const PlannedModel& planned,
                      const ExportOptions& options) {
  const GgufLayout layout = gguf_layout(planned_states(source, planned), options);
  if (!options.importance.empty()) io::read_importance_matrix(options.importance);
  ExportPlan plan;
  plan.notes = layout.notes;
  for (const auto& unit : layout.units) {
    for (const GgufPart& part : unit) add(plan, entry_for(part));
  }
  plan.bytes = prepare(source, planned.config, {}, layout, options, "planned.gguf", plan.notes)
                   ->file_bytes();
  return plan;
}

ExportReport export_gguf(const Model& model, const fs::path& path, const ExportOptions& options) {
  std::error_code error;
  require<UsageError>(options.replace || !fs::exists(path, error), path.string(),
                      "exists already; remove it or choose another name");
  require<UsageError>(!fs::exists(path, error) || fs::is_empty(path, error) || begins_as_gguf(path), path.string(),
                      "is no GGUF file, so it is not replaced by one; remove it yourself or choose "
                      "another name");
  const GgufLayout layout = gguf_layout(current_states(model), options);
  ExportReport report;
  report.path = path;
  report.notes = layout.notes;
  const auto writer = prepare(model.source(), model.config(), model.source_tokens(), layout,
                              options, path, report.notes);
  TensorWriter(model, layout, options, *writer, report).write();
  writer->finish();
  report.files = {path};
  report.bytes = fs::file_size(path);
  return report;
}

}  // namespace attar
