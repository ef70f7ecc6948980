#include "compress/pipeline/recipe_steps.h"

#include <algorithm>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/io/output_folder.h"

namespace attar {
namespace {

using nlohmann::json;

std::optional<std::int64_t> given(std::int64_t value) {
  return value < 0 ? std::nullopt : std::optional(value);
}

bool is_task(const std::string& name) {
  const std::vector<std::string> known = eval::task_names();
  return std::find(known.begin(), known.end(), name) != known.end() || name.starts_with("mmlu_");
}

std::string known_evals() {
  std::string known = "perplexity, divergence";
  for (const std::string& task : eval::task_names()) known += ", " + task;
  return known + ", mmlu_SUBJECT";
}

void check_output_path(const std::string& path, const std::string& where) {
  require<UsageError>(io::stays_inside(path), where,
                      "path must name a file or folder inside of the output folder, "
                      "got '",
                      path, "'");
}

}  // namespace

eval::TaskOptions TaskEvalConfig::options() const {
  eval::TaskOptions options;
  options.path = path;
  options.limit = given(limit);
  options.skip = skip;
  options.shots = given(shots);
  options.max_length = given(max_length);
  return options;
}

json EvalStep::options() const {
  return kind == EvalKind::kText ? write_fields(text) : write_fields(task);
}

NamedOptions read_named_step(const json& entry, std::string_view key, const std::string& where) {
  if (entry.is_string()) return {entry.get<std::string>(), json::object()};
  require<UsageError>(entry.is_object() && !entry.empty(), where,
                      "expected '- NAME: {options}' or "
                      "'- {",
                      key, ": NAME, ...}', got ", fields_detail::type_name(entry));
  if (const auto named = entry.find(std::string(key)); named != entry.end()) {
    require<UsageError>(named->is_string(), where, key, " must be a name, got ",
                        fields_detail::type_name(*named));
    json options = entry;
    options.erase(std::string(key));
    return {named->get<std::string>(), std::move(options)};
  }
  require<UsageError>(entry.size() == 1, where, "has ", entry.size(), " keys and no '", key,
                      "'; write '- NAME: {options}' or '- {", key, ": NAME, ...}'");
  const json& options = entry.begin().value();
  require<UsageError>(options.is_object() || options.is_null(), where, "the options of '",
                      entry.begin().key(), "' must be a mapping, got ",
                      fields_detail::type_name(options));
  return {entry.begin().key(), options.is_null() ? json::object() : options};
}

EvalStep read_eval_step(const json& entry, const std::string& where) {
  const NamedOptions named = read_named_step(entry, "task", where);
  EvalStep step;
  step.name = named.name;
  step.where = where + " " + named.name;
  if (named.name == "perplexity" || named.name == "divergence") {
    step.kind = EvalKind::kText;
    step.text = read_fields<TextEvalConfig>(named.options, step.where);
    require<UsageError>(!step.text.text.empty(), step.where, "text is missing; give a text file");
    cache_type(step.text.kv_bits, step.where);
    return step;
  }
  require<UsageError>(is_task(named.name), where, "unknown task '", named.name,
                      "'; known: ", known_evals());
  step.task = read_fields<TaskEvalConfig>(named.options, step.where);
  require<UsageError>(!step.task.path.empty(), step.where,
                      "path is missing; give the folder with the task's files");
  return step;
}

void refuse_repeated_tasks(const std::vector<EvalStep>& steps) {
  std::set<std::string> names;
  for (const EvalStep& step : steps) {
    require<UsageError>(step.kind == EvalKind::kText || names.insert(step.name).second, step.where,
                        "stands twice, and results are known by the task's name; measure it twice "
                        "in two commands");
  }
}

ExportStep read_export_step(const json& entry, const std::string& where) {
  ExportStep step{read_fields<ExportConfig>(entry, where), {}, where};
  const ExportConfig& config = step.config;
  require<UsageError>(!config.format.empty(), where,
                      "format is missing; one of gguf, compressed-tensors, huggingface, peft");
  check_output_path(config.path, where);
  step.where += " " + config.path;
  const bool is_gguf = config.format == "gguf";
  require<UsageError>(
      is_gguf == config.path.ends_with(".gguf"), step.where, "a ", config.format, " export is a ",
      is_gguf ? "file: end its path in .gguf" : "folder: its path must not end in .gguf");
  step.options.format = export_format_from(config.format);
  step.options.type = config.type;
  step.options.embedding_type = config.embedding;
  step.options.requantize = config.requantize;
  step.options.importance = config.importance;
  step.options.two_bits = config.two_bits;
  step.options.name = config.name;
  step.options.replace = true;  // the work folder is ours
  return step;
}

}  // namespace attar
