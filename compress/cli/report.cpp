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

bool is_run(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / "results.json", ignored);
}

// The finished runs in a folder of runs, by name.
std::vector<SweepOutcome> runs_in(const fs::path& folder) {
  std::error_code failed;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (is_run(entry.path()) && entry.path().string().find(".partial-") == std::string::npos) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<SweepOutcome> outcomes;
  for (const fs::path& path : found) {
    SweepOutcome& outcome = outcomes.emplace_back();
    outcome.name = path.filename().string();
    outcome.result.out = path;
    outcome.result.results = io::load_json(path / "results.json");
  }
  return outcomes;
}

void report(const Options& options) {
  const fs::path folder = options.path;
  if (is_run(folder)) {
    const nlohmann::json results = io::load_json(folder / "results.json");
    if (options.common.json()) return print_json(results);
    require(results.contains("attar") && results["attar"].contains("table"),
            (folder / "results.json").string(), "has no summary; is it attar's?");
    return print(results["attar"]["table"].get<std::string>() + "\n" +
                 (folder / "report.html").string() + "\n");
  }
  const std::vector<SweepOutcome> outcomes = runs_in(folder);
  require<IoError>(!outcomes.empty(), folder.string(),
                   "holds no finished run; give what --out of run named");
  if (!options.common.json()) return print(sweep_table(outcomes));
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const SweepOutcome& one : outcomes) all[one.name] = one.result.results;
  print_json(all);
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
