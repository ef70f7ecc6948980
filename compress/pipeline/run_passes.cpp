#include <algorithm>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/disk.h"
#include "compress/pipeline/run_phases.h"
#include "compress/train/token_weights.h"

namespace attar {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// `model` as the passes that ask find it; `statistics`: they take some, so tokens get weights.
CalibrationTokens calibration_tokens(const Recipe& recipe, const Model& model, bool statistics,
                                     const RunContext& context, PassReport& report) {
  const CalibrationConfig& config = *recipe.calibration;
  CalibrationTokens tokens = read_calibration(config, *tokenizer_of(model), recipe.seed);
  if (statistics && config.token_weights == "fisher") {
    TokenWeights found = token_weights(model, tokens.ids, config.weight_windows, context);
    tokens.weights = std::move(found.weights);
    if (found.dropped > 0) {
      const std::string text =
          std::to_string(found.dropped) + " of " + std::to_string(found.dropped + found.windows) +
          " windows have gradients that are not finite; " +
          (found.windows > 0 ? "tokens weigh what the others say" : "all tokens weigh alike");
      require<NumericRefusal>(!context.strict, "calibration.token_weights", text,
                              "; the recipe is strict, so this is refused");
      report.events.push_back({"model", "token_weights", text, /*fallback=*/true});
    }
  }
  return tokens;
}

bool any_needs(const PassPhase& phase, bool Needs::*what) {
  return std::any_of(phase.blockwise.begin(), phase.blockwise.end(),
                     [&](const BlockwisePass* pass) { return pass->needs().*what; });
}

std::unique_ptr<BlockStream> open_stream(const Recipe& recipe, const Model& model,
                                         CalibrationTokens tokens, bool dense_stream) {
  StreamOptions options;
  options.dense_stream = dense_stream;
  if (!recipe.calibration->store.empty()) {
    options.store = std::make_shared<StatisticsStore>(recipe.calibration->store);
  }
  return std::make_unique<BlockStream>(model, std::move(tokens), std::move(options));
}

}  // namespace

std::string PassPhase::name() const {
  if (whole) return std::string(whole->name());
  std::string names;
  for (const BlockwisePass* pass : blockwise) {
    names += (names.empty() ? "" : ", ") + std::string(pass->name());
  }
  return names;
}

std::vector<PassPhase> pass_phases(const std::vector<std::unique_ptr<Pass>>& passes,
                                   const fs::path& folder, const std::string& id) {
  std::vector<PassPhase> phases;
  for (std::size_t index = 0; index < passes.size(); ++index) {
    const auto* block = dynamic_cast<const BlockwisePass*>(passes[index].get());
    if (block && !phases.empty() && !phases.back().whole) {
      phases.back().blockwise.push_back(block);
      continue;
    }
    PassPhase phase;
    phase.first = index;
    if (block) phase.blockwise.push_back(block);
    phase.whole = dynamic_cast<const ModelPass*>(passes[index].get());
    if (!block && !phase.whole) {
      throw std::logic_error(message("run", passes[index]->name(), " is of no known kind"));
    }
    phase.checkpoint = std::make_shared<Checkpoint>(folder / std::to_string(phases.size()), id);
    phases.push_back(std::move(phase));
  }
  return phases;
}

void RunPhases::log_report(std::size_t pass, const PassReport& report, bool restored) {
  const std::string& name = record.recipe.passes[pass].name;
  record.reports[pass].push_back(report);
  const json written = report;
  for (json line : written.at("changed")) {
    line["pass"] = name;
    log.write(restored ? "layer_restored" : "layer", line);
  }
  for (const SkippedLayer& skipped : report.skipped) {
    log.write("skipped", {{"pass", name}, {"layer", skipped.layer}, {"reason", skipped.reason}});
  }
  for (const PassEvent& event : report.events) {
    log.write("note", {{"pass", name},
                       {"layer", event.layer},
                       {"kind", event.kind},
                       {"text", event.text},
                       {"fallback", event.fallback}});
  }
}

void RunPhases::run_blocks(const Model& input, Model& model, const PassPhase& phase) {
  std::unique_ptr<BlockStream> stream;
  if (any_needs(phase, &Needs::calibration)) {
    PassReport report;
    CalibrationTokens tokens = calibration_tokens(record.recipe, input, true, context, report);
    if (!report.events.empty()) log_report(phase.first, report, false);
    stream = open_stream(record.recipe, input, std::move(tokens),
                         any_needs(phase, &Needs::dense_stream));
  }
  const auto keep = [&](std::int64_t index, const BlockOutcome& outcome, bool restored) {
    for (std::size_t pass = 0; pass < outcome.reports.size(); ++pass) {
      log_report(phase.first + pass, outcome.reports[pass], restored);
    }
    log.write("block", {{"block", index}, {"restored", restored}});
    progress.step("block " + std::to_string(index) + (restored ? " (restored)" : ""));
  };
  run_blockwise(
      phase.blockwise, model, stream.get(), context,
      [&](std::int64_t index) {
        std::optional<BlockOutcome> outcome = phase.checkpoint->restore(index);
        if (outcome && outcome->reports.size() != phase.blockwise.size()) outcome.reset();
        if (outcome) keep(index, *outcome, true);
        record.restored_blocks += outcome ? 1 : 0;
        return outcome;
      },
      [&](std::int64_t index, const BlockOutcome& outcome) {
        phase.checkpoint->finish(index, outcome);
        keep(index, outcome, false);
      });
}

Model RunPhases::run_whole(const Model& input, const Model& original, const PassPhase& phase) {
  Checkpoint& checkpoint = *phase.checkpoint;
  if (const auto done = checkpoint.restore_done()) {
    log_report(phase.first, done->report, true);
    progress.step("restored");
    return input.successor(phase.checkpoint, done->kept, done->tokens);
  }
  const Needs needs = phase.whole->needs();
  PassReport report;
  std::optional<CalibrationTokens> calibration;
  if (needs.calibration) {
    calibration = calibration_tokens(record.recipe, input, needs.statistics, context, report);
  }
  const auto tokenizer = needs.tokenizer ? tokenizer_of(input) : nullptr;
  fs::create_directories(checkpoint.state_folder());
  Model output = input.successor(phase.checkpoint);
  ModelWork work{input,           output,
                 original,        calibration ? &*calibration : nullptr,
                 tokenizer.get(), checkpoint.state_folder(),
                 report,          context};
  phase.whole->run(work);
  checkpoint.finish_done({output.kept_blocks(), output.source_tokens(), report});
  log_report(phase.first, report, false);
  progress.step("done");
  return output;
}

Model RunPhases::run_passes(const Model& start, std::span<const PassPhase> phases) {
  Model model = start;
  record.reports.resize(record.recipe.passes.size());
  for (const PassPhase& phase : phases) {
    const Stopwatch watch;
    const std::string name = "passes: " + phase.name();
    progress.phase(phase.name(), phase.whole ? 1 : model.config().layers);
    log.write("phase", {{"phase", name}});
    if (phase.whole) {
      model = run_whole(model, start, phase);
    } else {
      Model next = model.successor(phase.checkpoint);
      run_blocks(model, next, phase);
      model = std::move(next);
    }
    for (const std::string& file : phase.checkpoint->damaged()) {
      log.write("note", {{"kind", "checkpoint"}, {"text", file + " was damaged and made again"}});
    }
    record.phase_seconds.emplace_back(name, watch.seconds());
    log.write(
        "phase_done",
        {{"phase", name}, {"seconds", watch.seconds()}, {"peak_rss_bytes", io::peak_rss_bytes()}});
    if (!record.recipe.eval_after_every_pass) continue;
    if (&phase == &phases.back()) {
      record.measured.last_stage = phase.name();
    } else {
      stages.emplace_back(phase.name(), model);
    }
  }
  return model;
}

}  // namespace attar
