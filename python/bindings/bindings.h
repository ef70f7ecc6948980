// One file an area, each adds its part to the module attar._attar. The files of python/attar make
// the interface of it; what goes to and fro is plain values, JSON as text, and tensors of logits.
#pragma once

#include <pybind11/pybind11.h>

#include <nlohmann/json.hpp>
#include <string>

#include "compress/core/numerics.h"
#include "compress/pipeline/measure.h"

namespace attar::bindings {

void bind_errors(pybind11::module_& module);    // one Python type an error of compress/core
void bind_pipeline(pybind11::module_& module);  // recipes: plan and run; the list of passes
void bind_measure(pybind11::module_& module);   // evaluate, compare
void bind_model(pybind11::module_& module);     // Model, Tokenizer

// All passes, and the language model of compress/runtime.
const Engine& engine();
// That on another runtime ("dense", "quantized"), keys and values in 32, 8 or 4 bits.
Engine engine_of(const std::string& runtime, std::int64_t kv_bits);

// Threads of what is computed while it lives: `threads`, if 0 those of the recipe, else the
// machine's.
ThreadScope use_threads(int threads, int recipe_threads = 0);

// JSON as text for json.loads; text that is no UTF-8 is replaced, as the program does when it
// prints.
template <class Json>
std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace);
}

}  // namespace attar::bindings
