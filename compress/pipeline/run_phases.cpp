#include "compress/pipeline/run_phases.h"

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/io/disk.h"
#include "compress/pipeline/run_identity.h"
#include "compress/tokenize/documents.h"

namespace attar {
namespace {

std::vector<TokenId> some_text(const Recipe& recipe, const Model& model) {
  for (const EvalStep& step : recipe.evals) {
    if (step.kind != EvalKind::kText) continue;
    return tokenizer_of(model)->encode(read_text_file(step.text.text).substr(0, 8192));
  }
  if (!recipe.calibration) return {};
  const std::string text = read_text_file(recipe.calibration->text.front());
  return tokenizer_of(model)->encode(text.substr(0, 8192));
}

}  // namespace

void RunPhases::start(bool resumed) {
  const Numerics& numerics = set_up_numerics();
  log.write(resumed ? "resume" : "start", {{"run_id", record.run_id},
                                           {"attar", attar_version()},
                                           {"recipe", record.resolved},
                                           {"model_sha256", record.model_sha256},
                                           {"threads", threads()},
                                           {"blas_mode", numerics.blas_mode},
                                           {"planned_peak_bytes", record.plan.peak_bytes}});
}

void RunPhases::measure_stages(const Model& original) {
  const std::vector<EvalStep>& evals = record.recipe.evals;
  for (const auto& [after, stage] : stages) {
    const auto tokenizer = tokenizer_of(stage);
    MeasuredStage measured{after, {}, {}};
    measured.texts =
        measure_texts(evals, original, stage, *tokenizer, context, progress, stage.source_tokens());
    measured.tasks = run_tasks(evals, {}, stage, tokenizer, engine, context, progress).tasks;
    for (const MeasuredText& text : measured.texts) {
      log.write("measured",
                {{"name", text.step.name}, {"after", after}, {"result", to_json(text.measured)}});
    }
    record.measured.stages.push_back(std::move(measured));
  }
}

void RunPhases::export_and_verify(const Model& model) {
  const Recipe& recipe = record.recipe;
  if (recipe.exports.empty()) return;
  const Stopwatch watch;
  progress.phase("export", static_cast<std::int64_t>(recipe.exports.size()));
  log.write("phase", {{"phase", "export"}});
  for (const ExportStep& step : recipe.exports) {
    context.check_stop();
    const std::filesystem::path path = work / step.config.path;
    std::filesystem::create_directories(path.parent_path());
    record.exports.push_back(export_model(model, path, step.options));
    log.write("export", {{"path", step.config.path},
                         {"bytes", record.exports.back().bytes},
                         {"notes", record.exports.back().notes}});
    progress.step(step.config.path);
  }
  const at::Tensor ids = verify_tokens(model.config(), some_text(recipe, model));
  progress.phase("verify", static_cast<std::int64_t>(recipe.exports.size()));
  for (std::size_t index = 0; index < recipe.exports.size(); ++index) {
    const ExportStep& step = recipe.exports[index];
    VerifyReport report = verify_export(model, record.exports[index], step.options, ids,
                                        [&] { context.check_stop(); });
    report.path = step.config.path;
    log.write("verify", to_json(report));
    require<NumericRefusal>(report.holds, step.where,
                            "the exported file does not compute what the "
                            "model computes: mean KL ",
                            report.agreement.kl_mean, ", largest difference of a logit ",
                            report.agreement.max_difference, ", wanted ", report.bound,
                            "; please report this");
    record.verified.push_back(std::move(report));
    progress.step(step.config.path);
  }
  record.phase_seconds.emplace_back("export and verify", watch.seconds());
  log.write("phase_done", {{"phase", "export and verify"},
                           {"seconds", watch.seconds()},
                           {"peak_rss_bytes", io::peak_rss_bytes()}});
}

Model RunPhases::exported(std::size_t index) const {
  return Model(open_model(work / record.recipe.exports[index].config.path));
}

Model RunPhases::written(const Model& model) const {
  return record.recipe.exports.empty() ? model : exported(0);
}

// Of `written`, which is `model` or the export `index` of it.
std::vector<MeasuredText> RunPhases::measure_texts_of(const Model& written, const Model& model,
                                                      std::size_t index) {
  const Recipe& recipe = record.recipe;
  auto texts = measure_texts(recipe.evals, model.original(), written, *tokenizer_of(model), context,
                             progress, model.source_tokens());
  for (const MeasuredText& text : texts) {
    nlohmann::json entry = {{"name", text.step.name}, {"result", to_json(text.measured)}};
    if (!recipe.exports.empty()) entry["path"] = recipe.exports[index].config.path;
    log.write("measured", entry);
  }
  return texts;
}

void RunPhases::judge_texts() {
  const Recipe& recipe = record.recipe;
  GateVerdict verdict = judge(*recipe.gate, record.measured.texts.front().measured);
  for (const MeasuredExport& other : record.measured.exports) {
    const GateVerdict found = judge(*recipe.gate, other.texts.front().measured);
    verdict.holds = verdict.holds && found.holds;
    for (const std::string& bound : found.broken) {
      verdict.broken.push_back(recipe.exports[other.index].config.path + ": " + bound);
    }
  }
  log.write("gate", {{"holds", verdict.holds}, {"broken", verdict.broken}});
  std::string broken;
  for (const std::string& bound : verdict.broken) broken += (broken.empty() ? "" : "; ") + bound;
  require<GateNotMet>(verdict.holds || recipe.gate->action == "warn",
                      recipe.file.string() + ": gate", broken,
                      "; loosen the gate, or give the passes more bits or smaller groups");
  if (!verdict.holds) progress.note("gate not met, as the recipe allows: " + broken);
  record.gate = std::move(verdict);
}

void RunPhases::measure(const Model& model, const Model& written) {
  const Recipe& recipe = record.recipe;
  if (recipe.evals.empty() && recipe.chat.empty()) return;
  const Stopwatch watch;
  log.write("phase", {{"phase", "measure"}});
  const Model original = model.original();
  Measurements& measured = record.measured;
  measured.texts = measure_texts_of(written, model, 0);
  for (std::size_t index = 1; index < recipe.exports.size(); ++index) {
    if (measured.texts.empty() || !record.exports[index].rounds()) continue;
    measured.exports.push_back({index, measure_texts_of(exported(index), model, index)});
  }
  if (recipe.gate) judge_texts();
  TaskRun before = run_tasks(recipe.evals, recipe.chat, original, tokenizer_of(original), engine,
                             context, progress);
  measure_stages(original);
  TaskRun after =
      run_tasks(recipe.evals, recipe.chat, written, tokenizer_of(model), engine, context, progress);
  std::size_t task = 0;
  for (const EvalStep& step : recipe.evals) {
    if (step.kind != EvalKind::kTask) continue;
    record.measured.tasks.push_back(
        {step, std::move(before.tasks[task]), std::move(after.tasks[task])});
    ++task;
  }
  for (std::size_t index = 0; index < recipe.chat.size(); ++index) {
    record.measured.chat.push_back(
        {recipe.chat[index], before.answers[index], after.answers[index]});
  }
  record.phase_seconds.emplace_back("measure", watch.seconds());
  log.write("phase_done", {{"phase", "measure"},
                           {"seconds", watch.seconds()},
                           {"peak_rss_bytes", io::peak_rss_bytes()}});
}

}  // namespace attar
