#include <pybind11/stl.h>

#include "compress/io/json.h"
#include "compress/pipeline/plan.h"
#include "compress/pipeline/run.h"
#include "python/bindings/bindings.h"
#include "python/bindings/interruption.h"

namespace attar::bindings {
namespace {

namespace py = pybind11;
using nlohmann::json;
using nlohmann::ordered_json;
using Overrides = std::vector<std::string>;

// `recipe` is the path of a file, or JSON text when `is_text`.
Recipe read(const std::string& recipe, bool is_text, const Overrides& overrides) {
  const PassRegistry& registry = *engine().registry;
  if (!is_text) return load_recipe(recipe, overrides, registry);
  json document = io::parse_json(recipe, "recipe");
  for (const std::string& assignment : overrides) apply_override(document, assignment);
  return read_recipe(document, {}, registry);
}

std::string plan(const std::string& recipe, bool is_text, const Overrides& overrides,
                 const std::string& out, int threads) {
  const Recipe asked = read(recipe, is_text, overrides);
  const ThreadScope held = use_threads(threads, asked.threads);
  PlanOptions options;
  if (!out.empty()) options.out = out;
  return json_text(to_json(make_plan(asked, *engine().registry, options)));
}

std::string run_recipe(const std::string& recipe, bool is_text, const Overrides& overrides,
                       const std::string& out, bool replace, int threads) {
  const Recipe asked = read(recipe, is_text, overrides);
  const ThreadScope held = use_threads(threads, asked.threads);
  return Interruption::guard([&](Interruption& interruption) {
    const RunOptions options{out, replace, interruption.stop(), &interruption};
    const RunResult result = run(asked, engine(), options);
    return json_text(ordered_json{{"out", result.out.string()},
                                  {"table", result.table},
                                  {"was_complete", result.was_complete},
                                  {"results", result.results}});
  });
}

std::string passes() {
  ordered_json found = ordered_json::array();
  for (const PassRegistry::Entry& entry : engine().registry->entries()) {
    ordered_json options = ordered_json::array();
    for (const FieldHelp& field : entry.fields) {
      options.push_back({{"name", field.name},
                         {"type", field.type},
                         {"default", field.default_value},
                         {"allowed", field.allowed},
                         {"text", field.text}});
    }
    found.push_back({{"name", entry.name}, {"summary", entry.summary}, {"options", options}});
  }
  return json_text(found);
}

}  // namespace

void bind_pipeline(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> free_gil;
  module.def("plan", &plan, free_gil, py::kw_only(), py::arg("recipe"), py::arg("is_text"),
             py::arg("overrides"), py::arg("out"), py::arg("threads"));
  module.def("run", &run_recipe, free_gil, py::kw_only(), py::arg("recipe"), py::arg("is_text"),
             py::arg("overrides"), py::arg("out"), py::arg("replace"), py::arg("threads"));
  module.def("passes", &passes, free_gil);
}

}  // namespace attar::bindings
