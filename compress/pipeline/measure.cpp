#include "compress/pipeline/measure.h"

#include <ATen/ops/empty.h>

#include "compress/core/errors.h"
#include "compress/pipeline/chat.h"
#include "compress/tokenize/documents.h"
#include "eval/encoding.h"

namespace attar {
namespace {

class StoppableModel final : public LanguageModel {
 public:
  StoppableModel(std::unique_ptr<LanguageModel> model, const RunContext& context)
      : model_(std::move(model)), context_(context) {}

  const Tokenizer& tokenizer() const override { return model_->tokenizer(); }
  std::int64_t max_length() const override { return model_->max_length(); }

  std::vector<ContinuationScore> score(
      std::span<const TokenId> prefix,
      std::span<const std::vector<TokenId>> continuations) override {
    context_.check_stop();
    return model_->score(prefix, continuations);
  }

  Generation generate_greedy(std::span<const TokenId> prompt, std::int64_t max_new_tokens,
                             std::span<const TokenId> stop_ids,
                             const std::function<bool(std::span<const TokenId>)>& stop) override {
    context_.check_stop();
    return model_->generate_greedy(prompt, max_new_tokens, stop_ids,
                                   [&](std::span<const TokenId> ids) {
                                     context_.check_stop();
                                     return stop && stop(ids);
                                   });
  }

 private:
  std::unique_ptr<LanguageModel> model_;
  const RunContext& context_;
};

std::string shown(double value) {
  std::ostringstream out;
  out.precision(4);
  out << value;
  return out.str();
}

nlohmann::json interval(const eval::Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

}  // namespace

GateVerdict judge(const GateConfig& gate, const eval::DivergenceSummary& measured) {
  GateVerdict verdict;
  const auto at_most = [&](const char* name, double value, double bound) {
    if (bound < 0 || value <= bound) return;
    verdict.holds = false;
    verdict.broken.push_back(std::string(name) + " is " + shown(value) + ", allowed at most " +
                             shown(bound));
  };
  at_most("kl_mean", measured.mean.value, gate.kl_mean);
  at_most("kl_p99", measured.p99.value, gate.kl_p99);
  at_most("perplexity_ratio", measured.perplexity_ratio.value, gate.perplexity_ratio);
  if (gate.top1 >= 0 && !(measured.same_top.value >= gate.top1)) {
    verdict.holds = false;
    verdict.broken.push_back("top1 is " + shown(measured.same_top.value) + ", wanted at least " +
                             shown(gate.top1));
  }
  return verdict;
}

std::unique_ptr<LanguageModel> stoppable(std::unique_ptr<LanguageModel> model,
                                         const RunContext& context) {
  return std::make_unique<StoppableModel>(std::move(model), context);
}

void check_window(const EvalStep& step, const ModelConfig& config) {
  require<UsageError>(step.text.length <= config.max_positions, step.where, "length ",
                      step.text.length, " exceeds the model's ", config.max_positions,
                      " positions; lower length");
}

ScoredWindows text_windows(const EvalStep& step, const Tokenizer& tokenizer) {
  const std::string& path = step.text.text;
  DocumentTokens tokens;
  if (is_json_lines(path)) {
    tokens = read_documents({.paths = {path}}, tokenizer);
  } else {
    tokens.ids = eval::encode_prompt(tokenizer, read_text_file(path));
    tokens.counts.assign(tokens.ids.size(), 1);
  }
  const std::int64_t length = step.text.length;
  const std::int64_t whole = std::ssize(tokens.ids) / length;
  require(whole > 0, step.where, "'", path, "' has ", tokens.ids.size(),
          " tokens, less than one window of ", length, "; give a longer text or lower length");
  const std::int64_t count = step.text.windows == 0 ? whole : std::min(whole, step.text.windows);
  ScoredWindows windows{at::empty({count, length}, at::kLong),
                        at::empty({count, length}, at::kByte)};
  std::copy_n(tokens.ids.begin(), count * length, windows.ids.mutable_data_ptr<std::int64_t>());
  std::copy_n(tokens.counts.begin(), count * length,
              windows.counts.mutable_data_ptr<std::uint8_t>());
  return windows;
}

std::vector<MeasuredText> measure_texts(const std::vector<EvalStep>& steps, const Model& original,
                                        const Model& changed, const Tokenizer& tokenizer,
                                        const RunContext& context, Progress& progress,
                                        KeptTokens tokens) {
  std::vector<MeasuredText> measured;
  for (const EvalStep& step : steps) {
    if (step.kind != EvalKind::kText) continue;
    // `perplexity` and `divergence` of the same windows are one measurement.
    const auto same = std::find_if(measured.begin(), measured.end(), [&](const MeasuredText& m) {
      return m.step.options() == step.options();
    });
    if (same != measured.end()) {
      measured.push_back({step, same->measured});
      continue;
    }
    check_window(step, original.config());
    check_window(step, changed.config());
    const ScoredWindows windows = text_windows(step, tokenizer);
    progress.phase(step.name, original.config().layers + windows.ids.size(0));
    const auto report = [&](std::string_view what) {
      context.check_stop();
      progress.step(what);
    };
    const auto divergence = walk_divergence(original, changed, windows, report, tokens,
                                            cache_type(step.text.kv_bits, step.where));
    measured.push_back({step, eval::summarize(divergence)});
  }
  return measured;
}

TaskRun run_tasks(const std::vector<EvalStep>& steps, const std::vector<std::string>& questions,
                  const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                  const Engine& engine, const RunContext& context, Progress& progress) {
  TaskRun run;
  bool any = !questions.empty();
  for (const EvalStep& step : steps) any |= step.kind == EvalKind::kTask;
  if (!any) return run;
  const auto language =
      stoppable(engine.make_language_model(model, tokenizer, engine.cache), context);
  for (const EvalStep& step : steps) {
    if (step.kind != EvalKind::kTask) continue;
    std::vector<eval::TaskResult>& results = run.tasks.emplace_back();
    for (const eval::Task& task : eval::open_tasks(step.name, step.task.options())) {
      progress.phase(task.name, static_cast<std::int64_t>(task.documents.size()));
      eval::RunOptions options;
      options.progress = [&](const eval::Progress&) {
        context.check_stop();
        progress.step("document");
      };
      results.push_back(eval::run_task(task, *language, options));
    }
  }
  if (!questions.empty()) progress.phase("chat", static_cast<std::int64_t>(questions.size()));
  for (const std::string& question : questions) {
    run.answers.push_back(answer_chat(*language, question, kChatTokens));
    progress.step("answer");
  }
  return run;
}

nlohmann::json to_json(const eval::DivergenceSummary& measured) {
  nlohmann::json json = {{"windows", measured.windows},
                         {"positions", measured.positions},
                         {"perplexity_before", interval(measured.teacher_perplexity)},
                         {"perplexity_after", interval(measured.perplexity)},
                         {"perplexity_ratio", interval(measured.perplexity_ratio)},
                         {"kl_mean", interval(measured.mean)},
                         {"kl_median", interval(measured.median)},
                         {"kl_p90", interval(measured.p90)},
                         {"kl_p95", interval(measured.p95)},
                         {"kl_p99", interval(measured.p99)},
                         {"kl_p99.9", interval(measured.p999)},
                         {"kl_max", measured.max},
                         {"top1", interval(measured.same_top)}};
  if (measured.outside.value > 0) {
    json["probability_of_dropped_tokens"] = interval(measured.outside);
  }
  return json;
}

}  // namespace attar
