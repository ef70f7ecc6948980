// prune, factorize, distill: a recipe of one pass.
#include "compress/cli/command.h"
#include "compress/cli/run_recipe.h"
#include "compress/core/errors.h"

namespace attar::cli {
namespace {

using nlohmann::json;

struct Options {
  Common common;
  std::string model, method, out, text, evaluate, format = "huggingface", type;
  std::vector<std::string> settings;
  std::int64_t sequences = 128, length = 512, seed = 0;
  bool print_recipe = false, replace = false;
};

struct ShortForm {
  const char* name;
  const char* summary;
  // What the user says, and the pass that it means; the first is the default.
  std::vector<std::pair<std::string, std::string>> methods;
};

// Instead of the calibration text.
bool reads_its_own_text(const std::string& pass) {
  return pass == "prune.vocab" || pass == "distill" || pass.starts_with("train.");
}

json document_of(const Options& options, const std::string& pass) {
  json document = {{"version", 1},
                   {"seed", options.seed},
                   {"model", options.model},
                   {"passes", json::array({{{pass, json::object()}}})}};
  for (const std::string& setting : options.settings) {
    apply_override(document, "passes.0." + setting);
  }
  json& settings = document["passes"][0][pass];
  if (!options.text.empty() && reads_its_own_text(pass)) {
    settings["text"] = options.text;
  } else if (!options.text.empty()) {
    document["calibration"] = {
        {"text", options.text}, {"sequences", options.sequences}, {"length", options.length}};
  }
  if (!options.evaluate.empty()) {
    document["eval"] = divergence_on(options.evaluate, options.model);
  }
  json exported = {{"format", options.format},
                   {"path", options.format == "gguf" ? "model.gguf" : "model"}};
  if (!options.type.empty()) exported["type"] = options.type;
  document["export"] = json::array({exported});
  return document;
}

void add_short_form(CLI::App& app, const ShortForm& form) {
  auto* command = app.add_subcommand(form.name, form.summary);
  const auto options = std::make_shared<Options>();
  options->method = form.methods.front().first;
  std::vector<std::string> names;
  for (const auto& [name, pass] : form.methods) names.push_back(name);
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("settings", options->settings,
                      "KEY=VALUE of the pass, which `attar passes` explains");
  command->add_option("--out", options->out, "Output folder");
  command->add_option("--method", options->method, "Which pass")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  command->add_option("--text", options->text,
                      "Text to calibrate on, to learn from, or whose tokens stay");
  command->add_option("--sequences", options->sequences, "Windows of it to calibrate on")
      ->capture_default_str();
  command->add_option("--length", options->length, "Tokens of such a window")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Of all random choices")->capture_default_str();
  command->add_option("--eval", options->evaluate, "Text to measure the KL on");
  command->add_option("--format", options->format, "huggingface, gguf or compressed-tensors")
      ->capture_default_str();
  command->add_option("--type", options->type, "Type of the layers in the file");
  command->add_flag("--print-recipe", options->print_recipe,
                    "Print the recipe that gives the same bytes, and stop");
  command->add_flag("--replace", options->replace, "Replace the output folder when it exists");
  add_common(*command, options->common);
  command->callback([options, methods = form.methods] {
    const auto found = std::find_if(methods.begin(), methods.end(), [&](const auto& method) {
      return method.first == options->method;
    });
    const Recipe recipe = read_recipe(document_of(*options, found->second), {}, *engine().registry);
    if (options->print_recipe) return print(to_yaml(recipe.resolved(*engine().registry)));
    require<UsageError>(!options->out.empty(), found->second,
                        "--out is missing; give an output folder, or --print-recipe");
    run_recipe(recipe, options->out, options->replace, options->common);
  });
}

}  // namespace

void add_short_forms(CLI::App& app) {
  add_short_form(app, {"prune",
                       "Short form of a recipe with a pruning pass",
                       {{"width", "prune.width"},
                        {"depth", "prune.depth"},
                        {"sparse", "prune.sparse"},
                        {"vocab", "prune.vocab"}}});
  add_short_form(app, {"factorize",
                       "Short form of a recipe with a low-rank pass",
                       {{"svd", "lowrank.svd"}, {"share", "lowrank.share"}}});
  add_short_form(app, {"distill",
                       "Short form of a recipe with a pass that learns",
                       {{"distill", "distill"}, {"text", "train.text"}, {"lora", "train.lora"}}});
}

}  // namespace attar::cli
