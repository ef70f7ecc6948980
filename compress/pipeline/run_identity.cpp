#include "compress/pipeline/run_identity.h"

#include <set>

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

std::string model_hash(const std::string& sha256, const std::string& path) {
  io::Sha256 hash;
  hash.update(sha256);
  for (const fs::path& file : companion_files(path)) {
    hash.update(file.filename().string()).update(io::sha256_file(file));
  }
  return hash.hex();
}

// What measurements and exports read, by path.
nlohmann::json files_beside(const Recipe& recipe) {
  std::set<fs::path> files;
  for (const EvalStep& step : recipe.evals) {
    if (step.kind == EvalKind::kText) {
      files.insert(step.text.text);
      continue;
    }
    for (const eval::Task& task : eval::open_tasks(step.name, step.task.options())) {
      files.insert(task.source);
      if (!task.examples.empty()) files.insert(task.examples);
    }
  }
  for (const ExportStep& step : recipe.exports) {
    if (!step.config.importance.empty()) files.insert(step.config.importance);
  }
  nlohmann::json hashes = nlohmann::json::object();
  for (const fs::path& file : files) hashes[file.string()] = io::sha256_file(file);
  return hashes;
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
      if (!options.contains("text") || options["text"].empty()) continue;
      nlohmann::json texts = nlohmann::json::array();
      for (const std::string& text : texts_of(options["text"]))
        texts.push_back(io::sha256_file(text));
      options["text"] = texts;
    }
  }
  nlohmann::json whole = recipe.resolved(registry);
  for (const char* key : {"threads", "calibration", "model"}) whole.erase(key);
  whole["files"] = files_beside(recipe);
  whole["weights"] = decides;
  return {io::sha256_hex(decides.dump()), io::sha256_hex(whole.dump())};
}

}  // namespace attar
