#include "compress/pipeline/measure.h"

#include <pybind11/stl.h>

#include "compress/formats/model_file.h"
#include "compress/io/atomic_file.h"
#include "compress/io/json.h"
#include "eval/perplexity.h"
#include "eval/results.h"
#include "python/bindings/bindings.h"
#include "python/bindings/interruption.h"

namespace attar::bindings {
namespace {

namespace py = pybind11;
using nlohmann::json;
using nlohmann::ordered_json;

std::vector<EvalStep> read_steps(const std::string& text) {
  std::vector<EvalStep> steps;
  const json entries = io::parse_json(text, "tasks");
  for (std::size_t i = 0; i < entries.size(); ++i) {
    steps.push_back(read_eval_step(entries[i], "tasks[" + std::to_string(i) + "]"));
  }
  return steps;
}

std::vector<eval::TaskResult> answer_tasks(const std::string& path,
                                           const std::vector<EvalStep>& steps,
                                           Interruption& interruption) {
  const Model model(open_model(path));
  const auto tokenizer = load_model_tokenizer(path);
  std::vector<eval::TaskResult> answers;
  TaskRun done =
      run_tasks(steps, {}, model, tokenizer, engine(), interruption.context(), interruption);
  for (auto& results : done.tasks) {
    for (auto& result : results) answers.push_back(std::move(result));
  }
  return answers;
}

// Perplexity alone, of a model without a teacher.
ordered_json texts_of(const std::string& path, const std::vector<EvalStep>& steps,
                      Interruption& interruption) {
  const Model model(open_model(path));
  const RunContext context = interruption.context();
  const auto language =
      stoppable(engine().make_language_model(model, load_model_tokenizer(path)), context);
  ordered_json texts = ordered_json::array();
  for (const EvalStep& step : steps) {
    if (step.kind != EvalKind::kText) continue;
    eval::PerplexityOptions options;
    options.window = step.text.length;
    if (step.text.windows > 0) options.max_windows = step.text.windows;
    options.progress = [&](std::int64_t, std::int64_t) {
      interruption.look();
      context.check_stop();
    };
    const auto found = eval::measure_perplexity(io::read_file(step.text.text), *language, options);
    texts.push_back({{"name", step.name},
                     {"text", step.text.text},
                     {"windows", found.window_losses.size()},
                     {"perplexity",
                      {{"value", found.perplexity.value},
                       {"low", found.perplexity.low},
                       {"high", found.perplexity.high}}}});
  }
  return texts;
}

ordered_json texts_against(const std::string& original, const std::string& changed,
                           const std::string& tokenizer, const std::vector<EvalStep>& steps,
                           Interruption& interruption) {
  ordered_json texts = ordered_json::array();
  const Model a(open_model(original)), b(open_model(changed));
  for (const MeasuredText& text : measure_texts(steps, a, b, *load_model_tokenizer(tokenizer),
                                                interruption.context(), interruption)) {
    ordered_json entry = {{"name", text.step.name}, {"text", text.step.text.text}};
    entry.update(ordered_json(to_json(text.measured)));
    texts.push_back(entry);
  }
  return texts;
}

std::string evaluate(const std::string& model, const std::string& tasks, const std::string& teacher,
                     int threads) {
  use_threads(threads);
  const std::vector<EvalStep> steps = read_steps(tasks);
  return Interruption::guard([&](Interruption& interruption) {
    const bool paired = !teacher.empty();
    const auto answers = answer_tasks(model, steps, interruption);
    const auto teachers =
        paired ? answer_tasks(teacher, steps, interruption) : std::vector<eval::TaskResult>();
    eval::ResultsInfo info;
    info.model = model;
    ordered_json results = eval::results_json(answers, info, teachers);
    results["attar"] = {{"texts", paired ? texts_against(teacher, model, model, steps, interruption)
                                         : texts_of(model, steps, interruption)}};
    return json_text(results);
  });
}

std::string compare(const std::string& original, const std::string& changed,
                    const std::string& text, std::int64_t length, std::int64_t windows,
                    int threads) {
  use_threads(threads);
  const json entry = {{"divergence", {{"text", text}, {"length", length}, {"windows", windows}}}};
  const EvalStep step = read_eval_step(entry, "compare");
  return Interruption::guard([&](Interruption& interruption) {
    const std::string& tokenizer = has_tokenizer(original) ? original : changed;
    const Model a(open_model(original)), b(open_model(changed));
    const auto measured = measure_texts({step}, a, b, *load_model_tokenizer(tokenizer),
                                        interruption.context(), interruption);
    return json_text(to_json(measured.front().measured));
  });
}

}  // namespace

void bind_measure(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> free_gil;
  module.def("evaluate", &evaluate, free_gil, py::kw_only(), py::arg("model"), py::arg("tasks"),
             py::arg("teacher"), py::arg("threads"));
  module.def("compare", &compare, free_gil, py::kw_only(), py::arg("original"), py::arg("changed"),
             py::arg("text"), py::arg("length"), py::arg("windows"), py::arg("threads"));
}

}  // namespace attar::bindings
