#include "compress/pipeline/run_identity.h"

#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/io/hash.h"
#include "compress/kernels/variants.h"

namespace attar {

namespace fs = std::filesystem;

std::string attar_version() { return ATTAR_VERSION; }

namespace {

std::vector<std::string> texts_of(const nlohmann::json& option) {
  if (option.is_string()) return {option.get<std::string>()};
  return option.get<std::vector<std::string>>();
}

// What makes words of a text, beside the weights.
bool of_tokenizer(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.starts_with("tokenizer") || name == "added_tokens.json" || name == "merges.txt" ||
         name == "special_tokens_map.json" || name == "vocab.json";
}

std::string model_hash(const std::string& sha256, const std::string& path) {
  io::Sha256 hash;
  hash.update(sha256);
  for (const fs::path& file : companion_files(path)) {
    if (of_tokenizer(file)) hash.update(file.filename().string()).update(io::sha256_file(file));
  }
  return hash.hex();
}

// What measurements and exports read beside the weights, wherever it lies.
nlohmann::json files_beside(const Recipe& recipe) {
  nlohmann::json hashes = nlohmann::json::array();
  const auto add = [&](const fs::path& file) {
    hashes.push_back({file.filename().string(), io::sha256_file(file)});
  };
  for (const fs::path& file : companion_files(recipe.model)) {
    if (!of_tokenizer(file)) add(file);
  }
  for (const EvalStep& step : recipe.evals) {
    if (step.kind == EvalKind::kText) {
      add(step.text.text);
      continue;
    }
    for (const eval::Task& task : eval::open_tasks(step.name, step.task.options())) {
      add(task.source);
      if (!task.examples.empty()) add(task.examples);
    }
  }
  for (const ExportStep& step : recipe.exports) {
    if (!step.config.importance.empty()) add(step.config.importance);
  }
  return hashes;
}

// Options of steps, without where their files lie: files_beside has those.
void forget_places(nlohmann::json& steps, const char* place) {
  for (nlohmann::json& step : steps) {
    if (step.contains(place)) step.erase(place);
    for (nlohmann::json& options : step) {
      if (options.is_object()) options.erase(place);
    }
  }
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
    // The words, wherever they lie.
    nlohmann::json texts = nlohmann::json::array();
    for (const std::string& text : recipe.calibration->text) texts.push_back(io::sha256_file(text));
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
      for (const std::string& text : texts_of(options["text"]))
        texts.push_back(io::sha256_file(text));
      options["text"] = texts;
    }
  }
  nlohmann::json whole = recipe.resolved(registry);
  for (const char* key : {"threads", "calibration", "model", "passes"}) whole.erase(key);
  for (const char* place : {"text", "path"}) forget_places(whole["eval"], place);
  forget_places(whole["export"], "importance");
  whole["files"] = files_beside(recipe);
  whole["weights"] = decides;
  return {io::sha256_hex(decides.dump()), io::sha256_hex(whole.dump())};
}

}  // namespace attar
