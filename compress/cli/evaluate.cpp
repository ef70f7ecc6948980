#include "compress/cli/command.h"
#include "compress/cli/signals.h"
#include "compress/cli/terminal_progress.h"
#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/atomic_file.h"
#include "compress/io/json.h"
#include "compress/io/yaml.h"
#include "eval/perplexity.h"
#include "eval/results.h"
#include "eval/table.h"

namespace attar::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  Common common;
  std::string model, teacher, results, samples;
  std::vector<std::string> tasks;
};

// "arc_easy:path=data,limit=100" -> the same entry as in a recipe's `eval`.
EvalStep parse_task(const std::string& text) {
  const std::string where = "--task " + text;
  const std::size_t colon = text.find(':');
  nlohmann::json options = nlohmann::json::object();
  for (std::size_t at = colon; at != text.npos;) {
    const std::size_t end = text.find(',', at + 1);
    const std::string pair = text.substr(at + 1, end == text.npos ? end : end - at - 1);
    const std::size_t equals = pair.find('=');
    require<UsageError>(equals != pair.npos && equals > 0, where, "write NAME:KEY=VALUE,KEY=VALUE");
    options[pair.substr(0, equals)] = io::parse_yaml(pair.substr(equals + 1), where);
    at = end;
  }
  return read_eval_step({{text.substr(0, colon), options}}, "--task");
}

struct Answers {
  std::vector<eval::TaskResult> tasks;
  ordered_json texts = ordered_json::array();
};

ordered_json perplexity_alone(const EvalStep& step, LanguageModel& model, const RunContext& context,
                              Progress& progress) {
  eval::PerplexityOptions options;
  options.window = step.text.length;
  if (step.text.windows > 0) options.max_windows = step.text.windows;
  bool first = true;
  options.progress = [&](std::int64_t, std::int64_t total) {
    context.check_stop();
    if (first) progress.phase(step.name, total);
    first = false;
    progress.step("window");
  };
  const auto found = eval::measure_perplexity(io::read_file(step.text.text), model, options);
  return {{"name", step.name},
          {"text", step.text.text},
          {"windows", found.window_losses.size()},
          {"perplexity",
           {{"value", found.perplexity.value},
            {"low", found.perplexity.low},
            {"high", found.perplexity.high}}}};
}

Answers answer(const std::string& path, const std::vector<EvalStep>& steps, bool with_texts,
               const RunContext& context, Progress& progress) {
  const Model model(open_model(path));
  const auto tokenizer = load_model_tokenizer(path);
  Answers answers;
  for (auto& results : run_tasks(steps, {}, model, tokenizer, engine(), context, progress).tasks) {
    for (auto& result : results) answers.tasks.push_back(std::move(result));
  }
  if (!with_texts) return answers;
  const auto language = stoppable(engine().make_language_model(model, tokenizer), context);
  for (const EvalStep& step : steps) {
    if (step.kind != EvalKind::kText) continue;
    answers.texts.push_back(perplexity_alone(step, *language, context, progress));
  }
  return answers;
}

ordered_json texts_against(const Options& options, const std::vector<EvalStep>& steps,
                           const RunContext& context, Progress& progress) {
  ordered_json texts = ordered_json::array();
  const Model teacher(open_model(options.teacher)), model(open_model(options.model));
  const auto tokenizer = load_model_tokenizer(options.model);
  for (const MeasuredText& text :
       measure_texts(steps, teacher, model, *tokenizer, context, progress)) {
    ordered_json entry = {{"name", text.step.name}, {"text", text.step.text.text}};
    entry.update(ordered_json(to_json(text.measured)));
    texts.push_back(entry);
  }
  return texts;
}

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

void evaluate(const Options& options) {
  use_threads(options.common);
  std::vector<EvalStep> steps;
  for (const std::string& task : options.tasks) steps.push_back(parse_task(task));
  TerminalProgress progress;
  RunContext context;
  context.stop = &stop_flag();
  const bool paired = !options.teacher.empty();
  Answers answers = answer(options.model, steps, !paired, context, progress);
  std::vector<eval::TaskResult> teachers;
  if (paired) {
    teachers = answer(options.teacher, steps, false, context, progress).tasks;
    answers.texts = texts_against(options, steps, context, progress);
  }
  eval::ResultsInfo info;
  info.model = options.model;
  ordered_json results = eval::results_json(answers.tasks, info, teachers);
  results["attar"] = {{"texts", answers.texts}};
  if (!options.results.empty()) io::write_json(options.results, results);
  if (!options.samples.empty()) {
    std::string lines;
    for (const eval::TaskResult& result : answers.tasks) {
      for (ordered_json& sample : eval::samples_json(result)) {
        sample["task"] = result.task.name;
        lines += sample.dump() + "\n";
      }
    }
    io::write_file(options.samples, lines);
  }
  progress.note("");
  if (options.common.json()) return print_json(results);
  std::string text;
  if (!answers.tasks.empty()) text += eval::result_table(answers.tasks, teachers);
  if (!answers.texts.empty()) text += (text.empty() ? "" : "\n") + texts_table(answers.texts);
  print(text);
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
  add_common(*command, options->common);
  command->callback([options] { evaluate(*options); });
}

}  // namespace attar::cli
