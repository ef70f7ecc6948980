#include <algorithm>
#include <optional>

#include "compress/cli/command.h"
#include "compress/core/errors.h"
#include "compress/io/json.h"
#include "compress/pipeline/sweep.h"

namespace attar::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  Common common;
  std::string path;
};

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

// results.json of a finished run; nothing where there is none, or one of another program.
std::optional<nlohmann::json> results_in(const fs::path& folder) {
  if (!is_file(folder / "manifest.json") || !is_file(folder / "results.json")) return std::nullopt;
  nlohmann::json results = io::load_json(folder / "results.json");
  const bool ours = results.is_object() && results.contains("attar") &&
                    results["attar"].is_object() && results["attar"].contains("table") &&
                    results["attar"]["table"].is_string();
  require(ours, (folder / "results.json").string(),
          "has no summary of a run; run its recipe again");
  return results;
}

// The finished runs in a folder of runs, by name.
std::vector<SweepOutcome> runs_in(const fs::path& folder) {
  std::error_code failed;
  std::vector<SweepOutcome> outcomes;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".partial-") != std::string::npos) continue;
    if (const auto results = results_in(entry.path())) {
      SweepOutcome& outcome = outcomes.emplace_back();
      outcome.name = name;
      outcome.result.out = entry.path();
      outcome.result.results = *results;
    }
  }
  require<IoError>(!failed, folder.string(), "cannot be read as a folder: ", failed.message());
  std::sort(outcomes.begin(), outcomes.end(),
            [](const SweepOutcome& a, const SweepOutcome& b) { return a.name < b.name; });
  return outcomes;
}

void report(const Options& options) {
  const fs::path folder = options.path;
  if (const auto results = results_in(folder)) {
    if (options.common.json()) return print_json(nlohmann::ordered_json(*results));
    return print((*results)["attar"]["table"].get<std::string>() + "\n" +
                 (folder / "report.html").string() + "\n");
  }
  const std::vector<SweepOutcome> outcomes = runs_in(folder);
  require<IoError>(!outcomes.empty(), folder.string(),
                   "holds no finished run; give what --out of run named");
  if (options.common.json()) return print_json(sweep_json(outcomes));
  reading(folder, [&] { print(sweep_table(outcomes)); });
}

}  // namespace

void add_report(CLI::App& app) {
  auto* command = app.add_subcommand("report", "The summary of a finished run, or of a sweep");
  const auto options = std::make_shared<Options>();
  command->add_option("path", options->path, "Output folder")->required();
  add_common(*command, options->common);
  command->callback([options] { report(*options); });
}

}  // namespace attar::cli
