#include "compress/pipeline/evaluate.h"

#include "compress/cli/runtime_option.h"
#include "compress/cli/signals.h"
#include "compress/cli/terminal_progress.h"
#include "compress/io/atomic_file.h"
#include "compress/io/json.h"
#include "eval/results.h"
#include "eval/table.h"

namespace attar::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  Common common;
  std::string model, teacher, results, samples, runtime = "dense";
  std::vector<std::string> tasks;
  std::int64_t kv_bits = 32;
};

std::string texts_table(const ordered_json& texts) {
  std::vector<std::vector<std::string>> rows = {{"text", "metric", "value", "95 % interval"}};
  for (const auto& text : texts) {
    for (const auto& [key, value] : text.items()) {
      if (!value.is_object() || !value.contains("low")) continue;
      rows.push_back({text.at("text").get<std::string>(), key, value.at("value").dump(),
                      value.at("low").dump() + " .. " + value.at("high").dump()});
    }
  }
  return eval::markdown_table(rows, {false, false, true, true});
}

std::string sample_lines(const std::vector<eval::TaskResult>& tasks) {
  std::string lines;
  for (const eval::TaskResult& result : tasks) {
    for (ordered_json& sample : eval::samples_json(result)) {
      sample["task"] = result.task.name;
      lines += sample.dump() + "\n";
    }
  }
  return lines;
}

void evaluate(const Options& options) {
  use_threads(options.common);
  for (const std::string& path : {options.results, options.samples}) {
    if (!path.empty()) io::AtomicFile probe(path);  // before the hours
  }
  std::vector<EvalStep> steps;
  for (const std::string& task : options.tasks) {
    steps.push_back(eval_step_from(task));
    if (options.kv_bits != 32) steps.back().text.kv_bits = options.kv_bits;
  }
  TerminalProgress progress;
  RunContext context;
  context.stop = &stop_flag();
  const Evaluation found =
      evaluate_model(options.model, options.teacher, steps,
                     engine_of(options.runtime, options.kv_bits), context, progress);
  const ordered_json results = found.results(options.model);
  progress.note("");
  if (!options.results.empty()) io::write_json(options.results, results);
  if (!options.samples.empty()) io::write_file(options.samples, sample_lines(found.tasks));
  if (options.common.json()) {
    print_json(results);
  } else {
    std::string text;
    if (!found.tasks.empty()) text += eval::result_table(found.tasks, found.teachers);
    if (!found.texts.empty()) text += (text.empty() ? "" : "\n") + texts_table(found.texts);
    print(text);
  }
}

}  // namespace

void add_evaluate(CLI::App& app) {
  auto* command = app.add_subcommand("eval", "Measure a model on tasks and texts");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command
      ->add_option("--task", options->tasks,
                   "NAME:KEY=VALUE,...; as arc_easy:path=data,limit=100 or "
                   "perplexity:text=wiki.txt,length=2048,windows=20")
      ->required();
  command->add_option("--teacher", options->teacher, "Model to compare with, document by document");
  command->add_option("--results", options->results, "Also write results.json here");
  command->add_option("--samples", options->samples, "Write every document's answers, JSON lines");
  add_runtime(*command, options->runtime);
  add_kv_bits(*command, options->kv_bits);
  add_common(*command, options->common);
  command->callback([options] { evaluate(*options); });
}

}  // namespace attar::cli
