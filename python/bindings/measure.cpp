#include <pybind11/stl.h>

#include "compress/io/json.h"
#include "compress/pipeline/evaluate.h"
#include "python/bindings/bindings.h"
#include "python/bindings/interruption.h"

namespace attar::bindings {
namespace {

namespace py = pybind11;
using nlohmann::json;

std::vector<EvalStep> read_steps(const std::string& text) {
  std::vector<EvalStep> steps;
  const json entries = io::parse_json(text, "tasks");
  for (std::size_t i = 0; i < entries.size(); ++i) {
    steps.push_back(read_eval_step(entries[i], "tasks[" + std::to_string(i) + "]"));
  }
  return steps;
}

std::string evaluate(const std::string& model, const std::string& tasks, const std::string& teacher,
                     const std::string& runtime, std::int64_t kv_bits, int threads) {
  const ThreadScope held = use_threads(threads);
  std::vector<EvalStep> steps = read_steps(tasks);
  for (EvalStep& step : steps) {
    if (kv_bits != 32) step.text.kv_bits = kv_bits;
  }
  return Interruption::guard([&](Interruption& interruption) {
    return json_text(evaluate_model(model, teacher, steps, engine_of(runtime, kv_bits),
                                    interruption.context(), interruption)
                         .results(model));
  });
}

std::string compare(const std::string& original, const std::string& changed,
                    const std::string& text, std::int64_t length, std::int64_t windows,
                    std::int64_t kv_bits, int threads) {
  const ThreadScope held = use_threads(threads);
  const json entry = {
      {"divergence",
       {{"text", text}, {"length", length}, {"windows", windows}, {"kv_bits", kv_bits}}}};
  const EvalStep step = read_eval_step(entry, "compare");  // checks the ranges
  return Interruption::guard([&](Interruption& interruption) {
    return json_text(
        compare_models(original, changed, step.text, interruption.context(), interruption));
  });
}

}  // namespace

void bind_measure(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> free_gil;
  module.def("evaluate", &evaluate, free_gil, py::kw_only(), py::arg("model"), py::arg("tasks"),
             py::arg("teacher"), py::arg("runtime"), py::arg("kv_bits"), py::arg("threads"));
  module.def("compare", &compare, free_gil, py::kw_only(), py::arg("original"), py::arg("changed"),
             py::arg("text"), py::arg("length"), py::arg("windows"), py::arg("kv_bits"),
             py::arg("threads"));
}

}  // namespace attar::bindings
