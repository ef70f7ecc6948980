#include "compress/pipeline/recipe.h"

#include <system_error>

#include "compress/core/errors.h"
#include "compress/io/yaml.h"

namespace attar {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// The top level of the document; its parts are read one by one.
struct Document {
  int version = 0;
  std::int64_t seed = 0;
  std::string model;
  int threads = 0;
  bool strict = false;
  bool eval_after_every_pass = false;
  json calibration, passes, gate, evals, exports;
  std::vector<std::string> chat;

  template <class Visit>
  static void fields(Visit&& visit) {
    using D = Document;
    visit("version", &D::version, Range{1, 1}, "Of the recipe form.");
    visit("seed", &D::seed, Range<std::int64_t>{0, std::int64_t{1} << 62},
          "Of all random choices.");
    visit("model", &D::model, Any{}, "Hugging Face folder or GGUF file.");
    visit("threads", &D::threads, Range{0, 4096}, "0: as many as the machine has.");
    visit("strict", &D::strict, Any{}, "Refuse numeric fallbacks.");
    visit("calibration", &D::calibration, Any{}, "Text that the passes calibrate on.");
    visit("passes", &D::passes, Any{}, "Ordered list.");
    visit("gate", &D::gate, Any{}, "Bounds that the result must hold.");
    visit("eval", &D::evals, Any{}, "What to measure before and after.");
    visit("eval_after_every_pass", &D::eval_after_every_pass, Any{},
          "Measure that after every pass too; block-wise passes that go through the model together "
          "count as one.");
    visit("export", &D::exports, Any{}, "What to write.");
    visit("chat", &D::chat, Any{}, "Questions answered before and after.");
  }
};

// Calls read(entry, place) for each entry of a list; an absent list is empty.
template <class Read>
void for_each(const json& list, const std::string& where, const char* key, Read&& read) {
  if (list.is_null()) return;
  require<UsageError>(list.is_array(), where, key, " must be a list, got ",
                      fields_detail::type_name(list));
  require<UsageError>(list.size() <= 1000, where, key, " has ", list.size(),
                      " entries; at most 1000");
  for (std::size_t index = 0; index < list.size(); ++index) {
    read(list[index], where + ": " + key + "[" + std::to_string(index) + "]");
  }
}

// Visits the paths among a pass's options. A pass that reads texts of its own calls the option
// "text": a file, or several.
template <class Options, class Visit>
void for_each_path(Options& options, const Visit& visit) {
  for (const char* key : {"text", "teacher", "cache"}) {
    if (!options.is_object() || !options.contains(key)) continue;
    auto& value = options.at(key);
    // The teacher's word for what the recipe started from.
    if (std::string_view(key) == "teacher" && value == "original") continue;
    if (value.is_string()) visit(value);
    if (!value.is_array()) continue;
    for (auto& one : value) {
      if (one.is_string()) visit(one);
    }
  }
}

std::vector<PassStep> read_passes(const json& list, const std::string& where, const fs::path& file,
                                  const PassRegistry& registry) {
  std::vector<PassStep> steps;
  for_each(list, where, "passes", [&](const json& entry, const std::string& place) {
    NamedOptions named = read_named_step(entry, "pass", place);
    const std::string full = place + " " + named.name;
    for_each_path(named.options,
                  [&](json& path) { path = resolve_path(path.get<std::string>(), file); });
    registry.make(named.name, named.options, full);
    steps.push_back({std::move(named.name), std::move(named.options), full});
  });
  return steps;
}

std::optional<CalibrationConfig> read_calibration_part(const Document& document,
                                                       const std::string& where,
                                                       const fs::path& file) {
  if (document.calibration.is_null()) return std::nullopt;
  const std::string place = where + ": calibration";
  auto config = read_fields<CalibrationConfig>(document.calibration, place);
  require<UsageError>(!config.text.empty(), place, "text is missing; give a text file");
  for (std::string& text : config.text) text = resolve_path(text, file);
  if (!config.store.empty()) config.store = resolve_path(config.store, file);
  return config;
}

void refuse_same_paths(const std::vector<ExportStep>& exports) {
  static constexpr const char* kOwn[] = {"results.json", "manifest.json", "run.jsonl",
                                         "report.html", "checkpoint"};
  for (std::size_t index = 0; index < exports.size(); ++index) {
    const auto path = fs::path(exports[index].config.path).lexically_normal();
    for (const char* own : kOwn) {
      require<UsageError>(*path.begin() != own, exports[index].where, "the run itself writes '",
                          own, "'; give another path");
    }
    for (std::size_t other = 0; other < index; ++other) {
      const auto taken = fs::path(exports[other].config.path).lexically_normal();
      const auto [a, b] = std::mismatch(path.begin(), path.end(), taken.begin(), taken.end());
      require<UsageError>(a != path.end() && b != taken.end(), exports[index].where, "'",
                          path.string(), "' and '", taken.string(),
                          "' overlap; give each export a path of its own");
    }
  }
}

void check_consistency(const Recipe& recipe, const PassRegistry& registry,
                       const std::string& where) {
  for (const PassStep& step : recipe.passes) {
    const bool needs = registry.make(step.name, step.options, step.where)->needs().calibration;
    require<UsageError>(!needs || recipe.calibration, step.where,
                        "needs calibration text; add 'calibration: {text: FILE}' to the recipe");
  }
  refuse_repeated_tasks(recipe.evals);
  bool measures_text = false;
  for (const EvalStep& step : recipe.evals) measures_text |= step.kind == EvalKind::kText;
  require<UsageError>(!recipe.gate || measures_text, where + ": gate",
                      "has nothing to measure on; add '- divergence: {text: FILE}' to eval");
  refuse_same_paths(recipe.exports);
}

}  // namespace

std::string resolve_path(const std::string& path, const fs::path& file) {
  const fs::path given(path);
  if (path.empty() || given.is_absolute() || file.empty()) return path;
  const fs::path beside = file.parent_path() / given;
  std::error_code ignored;
  return fs::exists(beside, ignored) ? beside.lexically_normal().string() : path;
}

Recipe read_recipe(const json& content, const fs::path& file, const PassRegistry& registry) {
  const std::string where = file.empty() ? "recipe" : file.string();
  require<UsageError>(content.is_object(), where,
                      "a recipe is a mapping (version, model, passes, "
                      "...), got ",
                      fields_detail::type_name(content));
  require<UsageError>(content.contains("version"), where, "version is missing; write 'version: 1'");
  const auto document = read_fields<Document>(content, where);
  Recipe recipe;
  recipe.file = file;
  recipe.seed = static_cast<std::uint64_t>(document.seed);
  require<UsageError>(!document.model.empty(), where,
                      "model is missing; give a Hugging Face folder or a GGUF file");
  recipe.model = resolve_path(document.model, file);
  recipe.threads = document.threads;
  recipe.strict = document.strict;
  recipe.chat = document.chat;
  recipe.eval_after_every_pass = document.eval_after_every_pass;
  recipe.calibration = read_calibration_part(document, where, file);
  recipe.passes = read_passes(document.passes, where, file, registry);
  if (!document.gate.is_null()) {
    recipe.gate = read_fields<GateConfig>(document.gate, where + ": gate");
    require<UsageError>(recipe.gate->bounded(), where + ": gate",
                        "has no bound; give kl_mean, kl_p99, top1 or perplexity_ratio");
  }
  for_each(document.evals, where, "eval", [&](const json& entry, const std::string& place) {
    EvalStep step = read_eval_step(entry, place);
    step.text.text = resolve_path(step.text.text, file);
    step.task.path = resolve_path(step.task.path, file);
    recipe.evals.push_back(std::move(step));
  });
  for_each(document.exports, where, "export", [&](const json& entry, const std::string& place) {
    ExportStep& step = recipe.exports.emplace_back(read_export_step(entry, place));
    step.options.importance = resolve_path(step.options.importance, file);
    step.config.importance = step.options.importance;
  });
  check_consistency(recipe, registry, where);
  return recipe;
}

Recipe load_recipe(const fs::path& file, const std::vector<std::string>& overrides,
                   const PassRegistry& registry) {
  json document = io::load_yaml(file);
  for (const std::string& assignment : overrides) apply_override(document, assignment);
  return read_recipe(document, file, registry);
}

json Recipe::deciding(const PassRegistry& registry) const {
  json document = {{"version", 1}, {"seed", seed}, {"model", model}, {"strict", strict}};
  if (calibration) {
    document["calibration"] = write_fields(*calibration);
    document["calibration"].erase("batch");
    document["calibration"].erase("store");
  }
  document["passes"] = json::array();
  for (const PassStep& step : passes) {
    const auto pass = registry.make(step.name, step.options, step.where);
    document["passes"].push_back({{step.name, pass->options()}});
  }
  return document;
}

std::vector<std::string> Recipe::paths_read() const {
  std::vector<std::string> paths = {model, file.string()};
  if (calibration) {
    paths.insert(paths.end(), calibration->text.begin(), calibration->text.end());
    paths.push_back(calibration->store);
  }
  for (const PassStep& step : passes) {
    for_each_path(step.options,
                  [&](const json& path) { paths.push_back(path.get<std::string>()); });
  }
  for (const EvalStep& step : evals) {
    paths.push_back(step.kind == EvalKind::kText ? step.text.text : step.task.path);
  }
  for (const ExportStep& step : exports) paths.push_back(step.options.importance);
  std::erase(paths, "");
  return paths;
}

json Recipe::resolved(const PassRegistry& registry) const {
  json document = deciding(registry);
  if (calibration) document["calibration"] = write_fields(*calibration);
  document["threads"] = threads;
  if (gate) {
    document["gate"] = write_fields(*gate);
    for (const char* bound : {"kl_mean", "kl_p99", "top1", "perplexity_ratio"}) {
      if (document["gate"][bound] < 0) document["gate"].erase(bound);
    }
  }
  document["eval"] = json::array();
  for (const EvalStep& step : evals) {
    json options = step.options();
    for (auto entry = options.begin(); entry != options.end();) {
      const bool unset = entry->is_number_integer() && *entry < 0;
      entry = unset ? options.erase(entry) : std::next(entry);
    }
    document["eval"].push_back({{step.name, std::move(options)}});
  }
  if (eval_after_every_pass) document["eval_after_every_pass"] = true;
  document["export"] = json::array();
  for (const ExportStep& step : exports) document["export"].push_back(write_fields(step.config));
  document["chat"] = chat;
  return document;
}

std::string to_yaml(const json& resolved) {
  static constexpr const char* kOrder[] = {
      "version",     "seed",   "model", "threads", "strict",
      "calibration", "passes", "gate",  "eval",    "eval_after_every_pass",
      "export",      "chat"};
  std::string text;
  for (const char* key : kOrder) {
    const auto found = resolved.find(key);
    if (found == resolved.end() || (found->is_array() && found->empty())) continue;
    text += std::string(key) + ":";
    if (!found->is_array()) {
      text += " " + found->dump() + "\n";
      continue;
    }
    text += "\n";
    for (const json& entry : *found) text += "  - " + entry.dump() + "\n";
  }
  return text;
}

}  // namespace attar
