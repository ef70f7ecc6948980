#include "compress/formats/adapter.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "compress/core/errors.h"
#include "compress/formats/export_layout.h"
#include "compress/formats/model_file.h"
#include "compress/formats/tensor_view.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"
#include "compress/io/output_folder.h"
#include "compress/io/safetensors_file.h"

namespace attar {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kWeights = "adapter_model.safetensors";

// --- reading ----------------------------------------------------------------------------------

struct AdapterConfig {
  fs::path base;
  double alpha = 0;
  std::map<std::string, double> alphas;  // alpha_pattern
  bool root_scale = false;               // rslora

  // What B A of that rank is multiplied with in a module. A key of alpha_pattern stands for each
  // module whose path ends with it.
  double scale(const std::string& module, std::int64_t rank, const std::string& where) const {
    std::optional<double> own;
    for (const auto& [key, value] : alphas) {
      if (module != key && !module.ends_with("." + key)) continue;
      require(own.value_or(value) == value, where, "two keys of alpha_pattern differ for ", module,
              "; leave one");
      own = value;
    }
    const auto of = static_cast<double>(rank);
    return own.value_or(alpha) / (root_scale ? std::sqrt(of) : of);
  }
};

AdapterConfig read_config(const fs::path& folder) {
  const fs::path path = folder / kAdapterConfig;
  const std::string where = path.string();
  const nlohmann::json json = io::load_json(path);
  try {
    require(json.at("peft_type") == "LORA", where, "peft_type is ", json.at("peft_type").dump(),
            "; attar reads LORA");
    for (const char* key : {"use_dora", "fan_in_fan_out"}) {
      require(!json.value(key, false), where, key, " is not read; merge the adapter with PEFT");
    }
    require(json.value("bias", "none") == "none", where, "bias must be 'none', got ",
            json.at("bias").dump());
    AdapterConfig config;
    config.base = json.at("base_model_name_or_path").get<std::string>();
    if (config.base.is_relative()) config.base = folder / config.base;
    config.alpha = json.at("lora_alpha").get<double>();
    require(json.at("r").get<double>() > 0, where, "r must be positive, got ", json.at("r").dump());
    config.alphas = json.value("alpha_pattern", config.alphas);
    for (const auto& [key, value] : config.alphas) {
      require(key.find_first_of("\\^$*+?()[]{}|") == key.npos, where, "alpha_pattern: '", key,
              "' is a regular expression, which attar does not read; name the modules");
    }
    config.root_scale = json.value("use_rslora", false);
    return config;
  } catch (const nlohmann::json::exception& error) {
    throw BadInput(message(where, "is no LoRA configuration: ", error.what()));
  }
}

std::shared_ptr<const HuggingFaceSource> open_base(const fs::path& base, const fs::path& folder) {
  const std::string where = (folder / kAdapterConfig).string();
  require<IoError>(fs::exists(base), where, "base_model_name_or_path is '", base.string(),
                   "', which is not there; write the path of the base model into it");
  const bool adapter = fs::exists(base / kAdapterConfig) && !fs::exists(base / "config.json");
  require(!adapter, where, "the base '", base.string(),
          "' is an adapter itself; merge that one first (an export of the format huggingface)");
  auto source = std::dynamic_pointer_cast<const HuggingFaceSource>(open_model(base));
  require(source != nullptr, where, "the base '", base.string(), "' must be a Hugging Face folder");
  return source;
}

class AdapterSource final : public HuggingFaceSource {
 public:
  explicit AdapterSource(const fs::path& folder)
      : path_(folder), file_(io::SafetensorsFile::open(folder / kWeights)) {
    const AdapterConfig config = read_config(folder);
    base_ = open_base(config.base, folder);
    for (std::int64_t i = 0; i < base_->config().layers; ++i) {
      for (const Role role : kRoles) read_term(config, i, role);
    }
    for (const io::TensorView& tensor : file_.tensors()) {
      require(known_.contains(tensor.name), file_.path().string(), "tensor '", tensor.name,
              "' belongs to no linear layer of ", base_->path());
    }
  }

  const ModelConfig& config() const override { return base_->config(); }
  Block read_block(std::int64_t index) const override {
    Block block = base_->read_block(index);
    for (const Role role : kRoles) {
      const auto term = terms_.find(layer_name(index, role));
      if (term == terms_.end()) continue;
      Weight& weight = block[role].weight;
      if (const auto* codes = std::get_if<QuantizedWeight>(&weight)) {
        weight = CorrectedWeight{*codes, term->second};
      } else {
        weight = CorrectedWeight{std::get<DenseWeight>(weight), term->second};
      }
    }
    return block;
  }
  Weight read_embedding() const override { return base_->read_embedding(); }
  at::Tensor read_final_norm() const override { return base_->read_final_norm(); }
  Weight read_head() const override { return base_->read_head(); }
  void done_with_block(std::int64_t index) const override { base_->done_with_block(index); }
  void done_with_outer() const override { base_->done_with_outer(); }
  void done_with(const at::Tensor& part) const override { base_->done_with(part); }
  std::string path() const override { return path_.string(); }
  std::string format() const override { return "peft"; }
  std::vector<std::string> left_out() const override { return base_->left_out(); }
  std::string sha256() const override {
    return io::sha256_hex(base_->sha256() + io::sha256_file(path_ / kWeights) +
                          io::sha256_file(path_ / kAdapterConfig));
  }
  std::int64_t file_bytes() const override {
    return base_->file_bytes() + static_cast<std::int64_t>(fs::file_size(path_ / kWeights));
  }
  const fs::path& folder() const override { return base_->folder(); }
  const nlohmann::json& config_json() const override { return base_->config_json(); }

  // With a term: plain values, as exports without one would hold them.
  StoredWeight stored(std::int64_t block, Role role) const override {
    StoredWeight stored = base_->stored(block, role);
    const auto term = terms_.find(layer_name(block, role));
    if (term == terms_.end()) return stored;
    stored.type += " + factors";
    stored.bytes += stored_bytes(term->second);
    stored.has_term = true;
    stored.codes_beneath = stored.scheme.has_value();
    stored.scheme.reset();
    stored.dense_type = at::kFloat;
    return stored;
  }
  StoredWeight stored_embedding() const override { return base_->stored_embedding(); }
  StoredWeight stored_head() const override { return base_->stored_head(); }

 private:
  at::Tensor factor(const std::string& name, std::int64_t rows, std::int64_t columns) {
    const io::TensorView& view = file_.at(name);
    const bool fits = view.shape.size() == 2 && (rows < 0 || view.shape[0] == rows) &&
                      (columns < 0 || view.shape[1] == columns);
    require(fits, file_.path().string(), "tensor '", name, "' has shape ", shape_text(view.shape),
            ", which does not fit the layer");
    known_.insert(name);
    return view_of(view).to(at::kFloat);
  }

  void read_term(const AdapterConfig& config, std::int64_t block, Role role) {
    const std::string module = layer_name(block, role), name = std::string(kPrefix) + module;
    if (file_.find(name + ".lora_A.weight") == nullptr) return;
    const LinearShape shape = shape_of(base_->config(), role);
    const at::Tensor a = factor(name + ".lora_A.weight", -1, shape.in);
    const at::Tensor b = factor(name + ".lora_B.weight", shape.out, a.size(0));
    const double scale = config.scale(module, a.size(0), (path_ / kAdapterConfig).string());
    terms_[module] = {scale == 1 ? b : b * scale, a};
  }

  fs::path path_;
  io::SafetensorsFile file_;
  std::shared_ptr<const HuggingFaceSource> base_;
  std::map<std::string, LowRankWeight> terms_;
  std::set<std::string> known_;
};

// --- writing ----------------------------------------------------------------------------------

struct Term {
  std::string module;  // "model.layers.3.mlp.down_proj"
  LowRankWeight factors;
};

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || at::equal(a, b));
}

bool same(const Weight& a, const Weight& b) {
  if (const auto* codes = std::get_if<QuantizedWeight>(&a)) {
    const auto* other = std::get_if<QuantizedWeight>(&b);
    return other != nullptr && same(codes->codes, other->codes) &&
           same(codes->scale, other->scale) && same(codes->zero, other->zero);
  }
  return shape_of(a) == shape_of(b) && at::equal(dense(a), dense(b));
}

void require_same(bool is, std::string_view what) {
  require<DoesNotFit>(is, "export", what,
                      " has changed, and an adapter holds terms beside an unchanged model; export "
                      "huggingface or compressed-tensors, which merge them");
}

// The terms of a layer whose base is the source's; none when nothing has changed.
std::optional<LowRankWeight> term_of(const Linear& now, const Linear& before,
                                     const std::string& module) {
  require_same(same(now.bias, before.bias), module + ".bias");
  const auto* sum = std::get_if<CorrectedWeight>(&now.weight);
  const Weight base =
      sum ? std::visit([](const auto& w) -> Weight { return w; }, sum->base) : now.weight;
  require_same(same(base, before.weight), module);
  return sum ? std::optional(sum->correction) : std::nullopt;
}

std::vector<Term> terms_of(const Model& model) {
  const ModelSource& source = model.source();
  require_same(model.config().layers == source.config().layers, "the number of blocks");
  require_same(same(model.embedding(), source.read_embedding()), "the embedding");
  require_same(same(model.final_norm(), source.read_final_norm()), "the final norm");
  require_same(same(model.head(), source.read_head()), "the head");
  std::vector<Term> terms;
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    if (!model.changed(i)) continue;
    const Block now = model.block(i), before = source.read_block(i);
    const std::string name = "block " + std::to_string(i);
    for (const Norm norm : kNorms) {
      require_same(same(now[norm], before[norm]), name + "'s " + std::string(short_name(norm)));
    }
    for (const Role role : roles_of(now)) {
      const std::string module = layer_name(i, role);
      if (auto term = term_of(now[role], before[role], module)) {
        terms.push_back({module, {term->b.contiguous(), term->a.contiguous()}});
      }
    }
    model.done_with_block(i);
  }
  require<DoesNotFit>(!terms.empty(), "export",
                      "no layer has a low-rank term; train.lora with merge: false leaves some");
  return terms;
}

std::vector<io::TensorPlan> plans_of(const std::vector<Term>& terms, io::ElementType type) {
  std::vector<io::TensorPlan> plans;
  for (const Term& term : terms) {
    const std::string name = std::string(kPrefix) + term.module;
    plans.push_back({name + ".lora_A.weight", type, term.factors.a.sizes().vec()});
    plans.push_back({name + ".lora_B.weight", type, term.factors.b.sizes().vec()});
  }
  return plans;
}

nlohmann::ordered_json config_for(const Model& model, const std::vector<Term>& terms) {
  std::int64_t rank = 0;
  for (const Term& term : terms) rank = std::max(rank, term.factors.a.size(0));
  nlohmann::ordered_json ranks = nlohmann::ordered_json::object(), modules;
  for (const Term& term : terms) {
    modules.push_back(term.module);
    if (term.factors.a.size(0) != rank) ranks[term.module] = term.factors.a.size(0);
  }
  return {{"base_model_name_or_path", fs::absolute(model.source().path()).lexically_normal()},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"lora_alpha", rank},
          {"alpha_pattern", ranks},  // alpha = r everywhere: the factors hold the scale
          {"lora_dropout", 0.0},
          {"peft_type", "LORA"},
          {"r", rank},
          {"rank_pattern", ranks},
          {"target_modules", modules},
          {"task_type", "CAUSAL_LM"},
          {"use_dora", false},
          {"use_rslora", false}};
}

at::ScalarType factor_type(const ExportOptions& options) {
  return options.type.empty() ? at::kFloat : dense_type_from(options.type);
}

void write_factor(io::SafetensorsWriter& writer, const std::string& name, const at::Tensor& values,
                  at::ScalarType type, ExportReport& report, const std::string& layer) {
  const at::Tensor stored = values.to(type).contiguous();
  writer.append(name, bytes_of(stored));
  TensorExport entry;
  entry.tensor = name;
  entry.layer = layer;
  entry.type = std::string(io::safetensors_name(element_type_of(type)));
  entry.how = "low-rank term";
  entry.bytes = bytes_of(stored).size();
  entry.max_difference =
      largest_difference(stored.to(at::kFloat), values.to(at::kFloat), name, entry.type);
  add(report, std::move(entry));
}

}  // namespace

std::shared_ptr<const HuggingFaceSource> open_adapter(const fs::path& folder) {
  return std::make_shared<AdapterSource>(folder);
}

fs::path adapter_base(const fs::path& folder) { return read_config(folder).base; }

ExportPlan check_adapter(const ModelSource& source, const PlannedModel& planned,
                         const ExportOptions& options) {
  const at::ScalarType type = factor_type(options);
  require<DoesNotFit>(dynamic_cast<const HuggingFaceSource*>(&source) != nullptr, "export",
                      source.path(), " is no Hugging Face folder, and PEFT adds its terms to one");
  ExportPlan plan;
  require_same(!planned.rows_go, "the vocabulary");
  for (const auto& [layer, scheme] : planned.layers) {
    require_same(planned.terms.contains(layer), layer);
  }
  require<DoesNotFit>(!planned.terms.empty(), "export",
                      "no pass leaves a low-rank term beside a weight; train.lora with merge: "
                      "false does");
  for (const auto& [layer, values] : planned.terms) {
    TensorExport entry;
    entry.tensor = std::string(kPrefix) + layer + ".lora_A.weight";
    entry.layer = layer;
    entry.type = std::string(io::safetensors_name(element_type_of(type)));
    entry.how = "low-rank term";
    entry.bytes = static_cast<std::uint64_t>(values) * at::elementSize(type);
    add(plan, std::move(entry));
    plan.bytes += static_cast<std::uint64_t>(values) * at::elementSize(type);
  }
  plan.notes.push_back("PEFT loads it beside " + source.path() + "; llama.cpp does not read it");
  return plan;
}

ExportReport export_adapter(const Model& model, const fs::path& folder,
                            const ExportOptions& options) {
  require<DoesNotFit>(dynamic_cast<const HuggingFaceSource*>(&model.source()) != nullptr, "export",
                      model.source().path(),
                      " is no Hugging Face folder, and PEFT adds its terms to one");
  const std::vector<Term> terms = terms_of(model);
  const at::ScalarType type = factor_type(options);
  ExportReport report;
  report.path = folder;
  io::OutputFolder output(folder, "export", replaceable_models(options));
  try {
    io::SafetensorsWriter writer(output.work() / kWeights, plans_of(terms, element_type_of(type)));
    for (const Term& term : terms) {
      const std::string name = std::string(kPrefix) + term.module;
      write_factor(writer, name + ".lora_A.weight", term.factors.a, type, report, term.module);
      write_factor(writer, name + ".lora_B.weight", term.factors.b, type, report, term.module);
    }
    writer.finish();
    report.bytes = fs::file_size(output.work() / kWeights);
    io::write_json(output.work() / kAdapterConfig, config_for(model, terms));
  } catch (...) {
    output.discard();
    throw;
  }
  output.commit();
  for (const auto& entry : fs::directory_iterator(folder)) report.files.push_back(entry.path());
  std::sort(report.files.begin(), report.files.end());
  return report;
}

}  // namespace attar
