#include "compress/pipeline/run_identity.h"

#include "compress/core/numerics.h"
#include "compress/io/hash.h"
#include "compress/kernels/variants.h"

namespace attar {

std::string attar_version() { return ATTAR_VERSION; }

namespace {

std::vector<std::string> texts_of(const nlohmann::json& option) {
  if (option.is_string()) return {option.get<std::string>()};
  return option.get<std::vector<std::string>>();
}

}  // namespace

RunIdentity identify(const Recipe& recipe, const PassRegistry& registry,
                     const std::string& model_sha256) {
  nlohmann::json decides = recipe.deciding(registry);
  decides.erase("model");
  decides["model_sha256"] = model_sha256;
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
      if (!options.contains("text") || options["text"].empty()) continue;
      nlohmann::json texts = nlohmann::json::array();
      for (const std::string& text : texts_of(options["text"]))
        texts.push_back(io::sha256_file(text));
      options["text"] = texts;
    }
  }
  nlohmann::json whole = recipe.resolved(registry);
  for (const char* key : {"threads", "calibration", "model"}) whole.erase(key);
  whole["weights"] = decides;
  return {io::sha256_hex(decides.dump()), io::sha256_hex(whole.dump())};
}

}  // namespace attar
