#include "compress/pipeline/run_identity.h"

#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/io/hash.h"
#include "compress/kernels/variants.h"
#include "compress/tokenize/documents.h"

namespace attar {

namespace fs = std::filesystem;

std::string attar_version() { return ATTAR_VERSION; }

namespace {

std::vector<std::string> texts_of(const nlohmann::json& option) {
  if (option.is_string()) return {option.get<std::string>()};
  return option.get<std::vector<std::string>>();
}

// A file wherever it lies: its name says how a text is read and what results call it.
nlohmann::json named_file(const fs::path& file) {
  return {file.filename().string(), io::sha256_file(file)};
}

// A text that is learnt from, wherever it lies and whatever it is called.
nlohmann::json text_file(const std::string& text) {
  return {is_json_lines(text), io::sha256_file(text)};
}

// What makes ids of a text, beside the weights: words, and the tokens that begin and end it.
bool of_tokenizer(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.starts_with("tokenizer") || name == "added_tokens.json" || name == "merges.txt" ||
         name == "special_tokens_map.json" || name == "vocab.json" ||
         name == "generation_config.json";
}

std::string model_hash(const std::string& sha256, const std::string& path) {
  io::Sha256 hash;
  hash.update(sha256);
  for (const fs::path& file : companion_files(path)) {
    if (of_tokenizer(file)) hash.update(file.filename().string()).update(io::sha256_file(file));
  }
  return hash.hex();
}

nlohmann::json files_of(const EvalStep& step) {
  if (step.kind == EvalKind::kText) return named_file(step.text.text);
  nlohmann::json files = nlohmann::json::array();
  for (const eval::Task& task : eval::open_tasks(step.name, step.task.options())) {
    files.push_back(named_file(task.source));
    if (!task.examples.empty()) files.push_back(named_file(task.examples));
  }
  return files;
}

// The recipe but for its passes, with what its files hold in place of where they lie.
nlohmann::json measured_and_exported(const Recipe& recipe, const PassRegistry& registry) {
  nlohmann::json whole = recipe.resolved(registry);
  for (const char* key : {"threads", "calibration", "model", "passes"}) whole.erase(key);
  for (std::size_t i = 0; i < recipe.evals.size(); ++i) {
    nlohmann::json& options = whole["eval"][i].begin().value();
    for (const char* place : {"text", "path"}) options.erase(place);
    options["files"] = files_of(recipe.evals[i]);
  }
  for (std::size_t i = 0; i < recipe.exports.size(); ++i) {
    const std::string& importance = recipe.exports[i].config.importance;
    whole["export"][i]["importance"] = importance.empty() ? "" : io::sha256_file(importance);
  }
  nlohmann::json beside = nlohmann::json::array();  // what exports copy
  for (const fs::path& file : companion_files(recipe.model)) {
    if (!of_tokenizer(file)) beside.push_back(named_file(file));
  }
  whole["beside"] = beside;
  return whole;
}

}  // namespace

RunIdentity identify(const Recipe& recipe, const PassRegistry& registry,
                     const std::string& model_sha256) {
  nlohmann::json decides = recipe.deciding(registry);
  decides.erase("model");
  decides["model_sha256"] = model_hash(model_sha256, recipe.model);
  decides["arithmetic"] = {set_up_numerics().blas_mode, kernels::active_isa()};
  decides["attar"] = source_hash();
  if (recipe.calibration) {
    nlohmann::json texts = nlohmann::json::array();
    for (const std::string& text : recipe.calibration->text) texts.push_back(text_file(text));
    decides["calibration"]["text"] = texts;
  }
  for (nlohmann::json& step : decides["passes"]) {
    for (nlohmann::json& options : step) {
      const std::string teacher = options.value("teacher", "original");
      if (teacher != "original") {
        options["teacher"] = model_hash(open_model(teacher)->sha256(), teacher);
      }
      if (options.contains("cache")) options["cache"] = options["cache"] != "";
      if (!options.contains("text") || options["text"].empty()) continue;
      nlohmann::json texts = nlohmann::json::array();
      for (const std::string& text : texts_of(options["text"])) texts.push_back(text_file(text));
      options["text"] = texts;
    }
  }
  nlohmann::json whole = measured_and_exported(recipe, registry);
  whole["weights"] = decides;
  return {io::sha256_hex(decides.dump()), io::sha256_hex(whole.dump())};
}

}  // namespace attar
