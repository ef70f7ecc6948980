#include "compress/pipeline/run.h"

#include <algorithm>
#include <filesystem>

#include "compress/cli/command.h"
#include "compress/cli/run_recipe.h"
#include "compress/cli/signals.h"
#include "compress/cli/terminal_progress.h"
#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/sweep.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string recipe, out;
  std::vector<std::string> overrides;
  std::int64_t batch = 0;
  bool replace = false;
};

RunResult run_into(const std::filesystem::path& out, const Recipe& recipe, bool replace,
                   const Common& common) {
  use_threads(common, recipe.threads);
  TerminalProgress progress;
  RunOptions run_options;
  run_options.out = out;
  run_options.replace = replace;
  run_options.stop = &stop_flag();
  run_options.progress = &progress;
  RunResult result = run(recipe, engine(), run_options);
  if (result.was_complete) progress.note("this run is complete already; nothing was done");
  progress.note("");
  return result;
}

// Each run in a folder of its own below OUT. A run that is refused leaves a line that says so, and
// the first refusal is the command's, once the others are done.
void sweep(const Options& options, const std::vector<SweepRun>& runs) {
  std::vector<SweepOutcome> outcomes;
  std::exception_ptr first;
  for (const SweepRun& one : runs) {
    SweepOutcome& outcome = outcomes.emplace_back();
    outcome.name = one.name;
    try {
      outcome.result = run_into(std::filesystem::path(options.out) / one.name, one.recipe,
                                options.replace, options.common);
    } catch (const Stopped&) {
      throw;
    } catch (const std::logic_error& error) {  // words of the recipe, input, and bugs
      outcome.refusal = error.what();
      if (!first) first = std::current_exception();
    } catch (const std::runtime_error& error) {  // sizes, numbers, the gate, the system
      outcome.refusal = error.what();
      if (!first) first = std::current_exception();
    }
  }
  if (options.common.json()) {
    print_json(sweep_json(outcomes));
  } else {
    print(sweep_table(outcomes));
  }
  if (first) std::rethrow_exception(first);
}

void run_command(const Options& options) {
  std::vector<std::string> overrides = options.overrides;
  if (options.batch > 0) {
    overrides.push_back("calibration.batch=" + std::to_string(options.batch));
  }
  const std::vector<SweepRun> runs = sweep_runs(options.recipe, overrides, *engine().registry);
  if (!runs.front().name.empty()) return sweep(options, runs);
  run_recipe(runs.front().recipe, options.out, options.replace, options.common);
}

}  // namespace

nlohmann::json divergence_on(const std::string& text, const std::string& model) {
  nlohmann::json options = {{"text", text}};
  if (std::filesystem::exists(model)) {  // else who only prints the recipe need not have it
    const std::int64_t positions = open_model(model)->config().max_positions;
    options["length"] = std::min(TextEvalConfig().length, positions);
  }
  return nlohmann::json::array({{{"divergence", options}}});
}

void run_recipe(const Recipe& recipe, const std::string& out, bool replace, const Common& common) {
  const RunResult result = run_into(out, recipe, replace, common);
  if (common.json()) {
    nlohmann::ordered_json json = {{"out", result.out.string()}};
    json.update(result.results);
    return print_json(json);
  }
  std::string text = result.table;
  for (const auto& answer : result.results.at("attar").at("chat")) {
    text += "\nQuestion: " + answer.at("question").get<std::string>() +
            "\nBefore:   " + answer.at("before").get<std::string>() +
            "\nAfter:    " + answer.at("after").get<std::string>() + "\n";
  }
  for (const auto& exported : result.results.at("attar").at("exports")) {
    text += "\n" + (result.out / exported.at("path").get<std::string>()).string();
  }
  print(text + "\n");
}

void add_run(CLI::App& app) {
  for (const char* name : {"run", "resume"}) {
    const bool is_run = std::string_view(name) == "run";
    auto* command = app.add_subcommand(
        name, is_run ? "Run a recipe; after a kill the same command goes on"
                     : "The same as run: goes on with what an interrupted run left");
    const auto options = std::make_shared<Options>();
    command->add_option("recipe", options->recipe, "Recipe file")->required();
    command->add_option(
        "overrides", options->overrides,
        "KEY=VALUE, as passes.0.bits=3; a list of values for a single one is a sweep");
    command->add_option("--out", options->out, "Output folder")->required();
    command->add_option("--batch", options->batch, "Sequences a forward; never changes a result")
        ->check(CLI::Range(1, 1024));
    command->add_flag("--replace", options->replace, "Replace the output folder when it exists");
    add_common(*command, options->common);
    command->callback([options] { run_command(*options); });
  }
}

}  // namespace attar::cli
