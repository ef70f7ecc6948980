#include <pybind11/pybind11.h>

#include <algorithm>
#include <thread>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/linalg/blas.h"
#include "compress/runtime/transformer.h"
#include "distill/passes.h"
#include "lowrank/passes.h"
#include "prune/passes.h"
#include "python/bindings/bindings.h"
#include "quantize/passes.h"

// Tensors cross the border by casters that torch's own module registered; both must mean the same.
static_assert(PYBIND11_INTERNALS_VERSION == 11, "attar and torch need the same pybind11 internals");

namespace attar::bindings {

namespace py = pybind11;

const Engine& engine() {
  static const PassRegistry registry = [] {
    PassRegistry all;
    register_distill_passes(all);
    register_prune_passes(all);
    register_lowrank_passes(all);
    register_quantize_passes(all);
    return all;
  }();
  static const Engine engine{&registry, &make_language_model};
  return engine;
}

Engine engine_of(const std::string& runtime, std::int64_t kv_bits) {
  Engine chosen = engine();
  chosen.make_language_model = language_model_on(runtime, "runtime");
  chosen.cache = cache_type(kv_bits, "kv_bits");
  if (runtime == "quantized") chosen.make_exact = &make_language_model;
  return chosen;
}

ThreadScope use_threads(int threads, int recipe_threads) {
  require<UsageError>(threads >= 0 && threads <= 4096, "threads", "must be in [0, 4096], got ",
                      threads);
  int count = threads > 0 ? threads : recipe_threads;
  if (count == 0) count = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return ThreadScope(count);
}

void bind_errors(py::module_& module) {
  const auto named = [](py::object error, const char* doc) {
    error.attr("__module__") = "attar";
    error.attr("__doc__") = doc;
  };
  named(py::register_exception<UsageError>(module, "UsageError", PyExc_ValueError),
        "The caller's words are off: an unknown option, key or pass, a value out of range.");
  named(py::register_exception<BadInput>(module, "BadInput", PyExc_ValueError),
        "A file's content is broken, lies, or is of a kind that attar does not read.");
  named(py::register_exception<DoesNotFit>(module, "DoesNotFit", PyExc_RuntimeError),
        "A width that a format cannot store, or memory or a disk that is too small.");
  named(py::register_exception<NumericRefusal>(module, "NumericRefusal", PyExc_RuntimeError),
        "Numbers that are not finite, or a numeric fallback that the recipe forbids.");
  named(py::register_exception<GateNotMet>(module, "GateNotMet", PyExc_RuntimeError),
        "A quality gate of the recipe does not hold.");
  named(py::register_exception<IoError>(module, "IoError", PyExc_RuntimeError),
        "The operating system refused: nothing there, no permission, disk full.");
  named(py::register_exception<Stopped>(module, "Stopped", PyExc_RuntimeError),
        "A stop was asked for; everything up to the last safe point is on disk.");
}

}  // namespace attar::bindings

PYBIND11_MODULE(_attar, module) {
  namespace bindings = attar::bindings;
  module.doc() = "What attar's C++ gives to Python; the package attar makes its interface of it.";
  // The BLAS of the thread that imports keeps its threads for what is not attar's.
  const int before = attar::linalg::keep_blas_on_one_thread();
  attar::set_up_numerics();
  attar::linalg::set_blas_threads(before);
  bindings::bind_errors(module);
  bindings::bind_model(module);
  bindings::bind_pipeline(module);
  bindings::bind_measure(module);
}
