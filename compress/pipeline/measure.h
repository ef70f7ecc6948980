// What a run measures: texts (perplexity, KL to the original, top-1) and tasks, before and after.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "compress/pipeline/block_walk.h"
#include "compress/pipeline/progress.h"
#include "compress/pipeline/recipe_steps.h"
#include "compress/runtime/language_model.h"
#include "eval/comparison.h"
#include "eval/divergence.h"
#include "eval/runner.h"

namespace attar {

// What the pipeline asks of the rooms below, so that tests can give their own.
struct Engine {
  const PassRegistry* registry = nullptr;
  using MakeLanguageModel = std::function<std::unique_ptr<LanguageModel>(
      const Model&, std::shared_ptr<const Tokenizer>, CacheType)>;
  MakeLanguageModel make_language_model;
  CacheType cache = CacheType::kFloat32;  // of the model that answers tasks
  // Where make_language_model rounds activations, the one that does not: for teachers.
  MakeLanguageModel make_exact = nullptr;
};

struct MeasuredText {
  EvalStep step;
  eval::DivergenceSummary measured;
};

struct MeasuredTask {
  EvalStep step;
  std::vector<eval::TaskResult> before, after;  // one, or one a subject; `after` may be empty
};

struct ChatAnswer {
  std::string question, before, after;
};

// What a recipe with `eval_after_every_pass` found on the way.
struct MeasuredStage {
  std::string after;  // PassPhase::name() of what was done last
  std::vector<MeasuredText> texts;
  std::vector<std::vector<eval::TaskResult>> tasks;  // by step
};

// A file that rounds by itself what no pass has, beside the first one.
struct MeasuredExport {
  std::size_t index = 0;  // in the recipe's `export`
  std::vector<MeasuredText> texts;
};

// `texts`, `after` of tasks and chat are those of the first export as it was written, or of the
// model that the passes left where nothing is exported.
struct Measurements {
  std::vector<MeasuredText> texts;
  std::vector<MeasuredExport> exports;
  std::vector<MeasuredTask> tasks;
  std::vector<ChatAnswer> chat;
  std::vector<MeasuredStage> stages;  // all but the last, which is `after` above
  std::string last_stage;             // what it is called
};

// Throws UsageError for windows that are longer than the model.
void check_window(const EvalStep& step, const ModelConfig& config);

// The windows that a `perplexity` or `divergence` entry asks for, which do not overlap. A text is
// tokenized at once, with BOS where the tokenizer adds one; of a *.jsonl only completions count.
ScoredWindows text_windows(const EvalStep& step, const Tokenizer& tokenizer);

struct GateVerdict {
  bool holds = true;
  std::vector<std::string> broken;  // one sentence a bound
};
// The first text of the recipe decides.
GateVerdict judge(const GateConfig& gate, const eval::DivergenceSummary& measured);

// A model as LanguageModel that looks for a stop before everything it is asked. Throws Stopped.
std::unique_ptr<LanguageModel> stoppable(std::unique_ptr<LanguageModel> model,
                                         const RunContext& context);

// Both models side by side, block by block (block_walk.h). `tokenizer` is that of `changed`, and
// `tokens` says what its tokens are in the original (walk_divergence).
std::vector<MeasuredText> measure_texts(const std::vector<EvalStep>& steps, const Model& original,
                                        const Model& changed, const Tokenizer& tokenizer,
                                        const RunContext& context, Progress& progress,
                                        KeptTokens tokens = {});

// Every task of `steps` on one model, and the chat questions.
struct TaskRun {
  std::vector<std::vector<eval::TaskResult>> tasks;  // by step
  std::vector<std::string> answers;
};
TaskRun run_tasks(const std::vector<EvalStep>& steps, const std::vector<std::string>& questions,
                  const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                  const Engine& engine, const RunContext& context, Progress& progress);

nlohmann::json to_json(const eval::DivergenceSummary& measured);

}  // namespace attar
