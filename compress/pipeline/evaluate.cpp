#include "compress/pipeline/evaluate.h"

#include <utility>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/yaml.h"
#include "compress/tokenize/documents.h"
#include "eval/perplexity.h"
#include "eval/results.h"

namespace attar {
namespace {

using nlohmann::ordered_json;

// Whether `text` goes on with KEY=, KEY made of letters, digits and underscores.
bool starts_with_key(std::string_view text) {
  const std::size_t end =
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
  return end != text.npos && end > 0 && text[end] == '=';
}

// Where the pair that begins at `from` ends: at a comma with a key behind it, or with the text.
std::size_t pair_end(const std::string& text, std::size_t from) {
  std::size_t end = text.find(',', from);
  while (end != text.npos && !starts_with_key(std::string_view(text).substr(end + 1))) {
    end = text.find(',', end + 1);
  }
  return end;
}

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
  const auto found = eval::measure_perplexity(read_text_file(step.text.text), model, options);
  return {{"name", step.name},
          {"text", step.text.text},
          {"windows", found.window_losses.size()},
          {"perplexity",
           {{"value", found.perplexity.value},
            {"low", found.perplexity.low},
            {"high", found.perplexity.high}}}};
}

// One path's tasks; its perplexities as well where `texts` is given.
std::vector<eval::TaskResult> answer(const std::string& path, const std::vector<EvalStep>& steps,
                                     const Engine& engine, const RunContext& context,
                                     Progress& progress, ordered_json* texts) {
  const Model model(open_model(path));
  const std::shared_ptr<const Tokenizer> tokenizer = load_model_tokenizer(path);
  std::vector<eval::TaskResult> answers;
  for (auto& results : run_tasks(steps, {}, model, tokenizer, engine, context, progress).tasks) {
    for (auto& result : results) answers.push_back(std::move(result));
  }
  std::unique_ptr<LanguageModel> language;
  std::int64_t kv_bits = 0;  // of `language`
  for (const EvalStep& step : steps) {
    if (texts == nullptr || step.kind != EvalKind::kText) continue;
    if (std::exchange(kv_bits, step.text.kv_bits) != step.text.kv_bits) {
      language.reset();
      const CacheType cache = cache_type(kv_bits, step.where);
      language = stoppable(engine.make_language_model(model, tokenizer, cache), context);
    }
    texts->push_back(perplexity_alone(step, *language, context, progress));
  }
  return answers;
}

// What the tokens of a model are in another one whose vocabulary is larger, by their spelling;
// empty for models with as many. Throws BadInput naming a token that the other does not have.
std::vector<std::int64_t> tokens_in(const Model& original, const std::string& original_path,
                                    const Model& changed, const Tokenizer& tokenizer) {
  if (changed.config().vocabulary == original.config().vocabulary) return {};
  const auto larger = load_model_tokenizer(original_path);
  std::vector<std::int64_t> tokens;
  for (std::int64_t id = 0; id < changed.config().vocabulary; ++id) {
    const std::string_view spelling = tokenizer.token(static_cast<TokenId>(id));
    const auto found = larger->id_of(spelling);
    require(!spelling.empty() && found && *found < original.config().vocabulary,
            changed.source().path(), "has ", changed.config().vocabulary, " tokens and ",
            original_path, " has ", original.config().vocabulary, ", and token ", id, " ('",
            spelling,
            "') is none of these; only models with one vocabulary, or with a part of the "
            "original's, can be compared");
    tokens.push_back(*found);
  }
  return tokens;
}

ordered_json texts_against(const std::string& original, const std::string& changed,
                           const std::vector<EvalStep>& steps, const RunContext& context,
                           Progress& progress) {
  ordered_json texts = ordered_json::array();
  const Model teacher(open_model(original)), model(open_model(changed));
  const auto tokenizer = load_model_tokenizer(changed);
  const auto tokens = tokens_in(teacher, original, model, *tokenizer);
  for (const MeasuredText& text :
       measure_texts(steps, teacher, model, *tokenizer, context, progress, tokens)) {
    ordered_json entry = {{"name", text.step.name}, {"text", text.step.text.text}};
    entry.update(ordered_json(to_json(text.measured)));
    texts.push_back(std::move(entry));
  }
  return texts;
}

int bits_of(CacheType cache) {
  return cache == CacheType::kFloat32 ? 32 : cache == CacheType::kCodes8 ? 8 : 4;
}

}  // namespace

EvalStep eval_step_from(const std::string& text) {
  const std::string where = "--task " + text;
  const std::size_t colon = text.find(':');
  nlohmann::json options = nlohmann::json::object();
  for (std::size_t at = colon; at != text.npos;) {
    const std::size_t end = pair_end(text, at + 1);
    const std::string pair = text.substr(at + 1, end == text.npos ? end : end - at - 1);
    require<UsageError>(starts_with_key(pair), where, "write NAME:KEY=VALUE,KEY=VALUE");
    const std::size_t equals = pair.find('=');
    options[pair.substr(0, equals)] = io::parse_yaml(pair.substr(equals + 1), where);
    at = end;
  }
  return read_eval_step({{text.substr(0, colon), options}}, "--task");
}

ordered_json Evaluation::results(const std::string& model) const {
  eval::ResultsInfo info;
  info.model = model;
  info.extra = config;
  ordered_json results = eval::results_json(tasks, info, teachers);
  results["attar"] = {{"texts", texts}};
  return results;
}

namespace {

// Before the first document: what would be refused behind the last one.
void check_steps(const std::string& model, const std::string& teacher,
                 const std::vector<EvalStep>& steps, const Engine& engine) {
  refuse_repeated_tasks(steps);
  const ModelConfig config = open_model(model)->config();
  const bool reads_texts =
      std::ranges::any_of(steps, [](const EvalStep& step) { return step.kind == EvalKind::kText; });
  if (reads_texts && !teacher.empty()) {
    tokens_in(Model(open_model(teacher)), teacher, Model(open_model(model)),
              *load_model_tokenizer(model));
  }
  for (const EvalStep& step : steps) {
    if (step.kind == EvalKind::kTask) continue;
    require<UsageError>(!teacher.empty() || !is_json_lines(step.text.text), step.where, "'",
                        step.text.text,
                        "' counts by its completions, which is measured beside the original alone; "
                        "give one (--teacher), or a plain text");
    require<UsageError>(teacher.empty() || !engine.make_exact, step.where,
                        "a text beside a teacher is measured in float32; leave out --teacher, or "
                        "use the runtime dense");
    if (teacher.empty()) {  // the first token of a window stands in front of it
      require<UsageError>(step.text.length <= config.max_positions + 1, step.where, "length ",
                          step.text.length, " exceeds the model's ", config.max_positions,
                          " positions; lower length");
      continue;
    }
    check_window(step, config);
    check_window(step, open_model(teacher)->config());
  }
}

}  // namespace

Evaluation evaluate_model(const std::string& model, const std::string& teacher,
                          const std::vector<EvalStep>& steps, const Engine& engine,
                          const RunContext& context, Progress& progress) {
  check_steps(model, teacher, steps, engine);
  Evaluation found;
  found.config = {{"runtime", engine.make_exact ? "quantized" : "dense"},
                  {"kv_bits", bits_of(engine.cache)}};
  if (teacher.empty()) {
    found.tasks = answer(model, steps, engine, context, progress, &found.texts);
    return found;
  }
  found.tasks = answer(model, steps, engine, context, progress, nullptr);
  Engine plain = engine;
  plain.cache = CacheType::kFloat32;
  if (engine.make_exact) plain.make_language_model = engine.make_exact;
  found.teachers = answer(teacher, steps, plain, context, progress, nullptr);
  found.texts = texts_against(teacher, model, steps, context, progress);
  return found;
}

nlohmann::json compare_models(const std::string& original, const std::string& changed,
                              const TextEvalConfig& text, const RunContext& context,
                              Progress& progress) {
  EvalStep step;
  step.name = "divergence";
  step.kind = EvalKind::kText;
  step.where = "compare";
  step.text = text;
  const Model a(open_model(original)), b(open_model(changed));
  const bool same = a.config().vocabulary == b.config().vocabulary;
  const auto tokenizer = load_model_tokenizer(same && has_tokenizer(original) ? original : changed);
  const auto tokens = tokens_in(a, original, b, *tokenizer);
  const auto measured = measure_texts({step}, a, b, *tokenizer, context, progress, tokens);
  return to_json(measured.front().measured);
}

}  // namespace attar
