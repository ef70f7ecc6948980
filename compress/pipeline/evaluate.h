// Models measured without a run: `attar eval` and `attar compare`, attar.evaluate and
// attar.compare are these functions.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/pipeline/measure.h"

namespace attar {

// "arc_easy:path=data,limit=100" -> the same entry as in a recipe's `eval`. A comma that no KEY=
// follows belongs to the value. Throws UsageError.
EvalStep eval_step_from(const std::string& text);

struct Evaluation {
  std::vector<eval::TaskResult> tasks;
  std::vector<eval::TaskResult> teachers;  // of the same tasks; empty without a teacher
  // A list: perplexity of a model alone; beside a teacher what measure_texts finds.
  nlohmann::ordered_json texts = nlohmann::ordered_json::array();
  nlohmann::ordered_json config;  // on what the model answered: runtime, kv_bits

  // lm-evaluation-harness' schema, with "attar": {"texts": ...}.
  nlohmann::ordered_json results(const std::string& model) const;
};

// `model` and `teacher` (empty: none) are paths. The engine and the kv_bits of a text are those of
// `model`; a teacher answers in float32. Throws UsageError for a task that stands twice, for a
// *.jsonl without a teacher, and for a text beside a teacher on an engine that rounds activations.
Evaluation evaluate_model(const std::string& model, const std::string& teacher,
                          const std::vector<EvalStep>& steps, const Engine& engine,
                          const RunContext& context, Progress& progress);

// `changed` against `original` on one text; the tokenizer is that of either which has one.
nlohmann::json compare_models(const std::string& original, const std::string& changed,
                              const TextEvalConfig& text, const RunContext& context,
                              Progress& progress);

}  // namespace attar
