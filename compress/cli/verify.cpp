#include "compress/pipeline/verify.h"

#include "compress/cli/command.h"
#include "compress/cli/signals.h"
#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"
#include "compress/io/output_folder.h"

namespace attar::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct Options {
  Common common;
  std::string path, against;
};

at::Tensor tokens_for(const Model& model) { return verify_tokens(model.config(), {}); }

ordered_json agreement_json(const LogitAgreement& found) {
  return {{"tokens", found.tokens},       {"max_difference", found.max_difference},
          {"max_logit", found.max_logit}, {"kl_mean", found.kl_mean},
          {"kl_max", found.kl_max},       {"top1", found.top1}};
}

// Every file of a finished run against the hash in its manifest.
ordered_json check_hashes(const fs::path& folder, const nlohmann::json& manifest) {
  ordered_json files = ordered_json::array();
  const std::string where = (folder / "manifest.json").string();
  const bool listed = manifest.is_object() && manifest.contains("outputs") &&
                      manifest["outputs"].is_object() && !manifest["outputs"].empty();
  require(listed, where, "has no list of outputs; is it attar's?");
  for (const auto& [name, entry] : manifest["outputs"].items()) {
    require(io::stays_inside(name), where, "names the output '", name, "' outside of its folder");
    const std::string found = io::sha256_file(folder / name);
    require(entry.at("sha256") == found, (folder / name).string(),
            "is not the file that the run wrote: its sha256 is ", found, ", the manifest says ",
            entry.at("sha256").dump(), "; run the recipe again with --replace");
    files.push_back(name);
  }
  return files;
}

ordered_json verify_run(const fs::path& folder, const std::function<void()>& check_stop) {
  const nlohmann::json manifest = io::load_json(folder / "manifest.json");
  ordered_json report = {{"path", folder.string()}};
  std::vector<std::string> paths;
  reading(folder / "manifest.json", [&] {
    report["files"] = check_hashes(folder, manifest);
    for (const auto& step : manifest.at("recipe").at("export")) paths.push_back(step.at("path"));
  });
  ordered_json exports = ordered_json::array();
  std::shared_ptr<const ModelSource> first;
  for (const std::string& path : paths) {
    const auto source = open_model(folder / path);
    if (!first) first = source;
    const Model reference(first), model(source);
    const LogitAgreement found =
        compare_logits(reference, model, tokens_for(reference), check_stop);
    ordered_json entry = {{"path", path}};
    entry.update(agreement_json(found));
    exports.push_back(entry);
  }
  report["exports"] = exports;  // against the first one
  return report;
}

void verify(const Options& options) {
  use_threads(options.common);
  RunContext context;
  context.stop = &stop_flag();
  const auto check_stop = [&] { context.check_stop(); };
  const fs::path path(options.path);
  ordered_json report;
  if (fs::is_regular_file(path / "manifest.json") && options.against.empty()) {
    report = verify_run(path, check_stop);
  } else {
    const Model model(open_model(path));
    const Model reference(open_model(options.against.empty() ? path : fs::path(options.against)));
    report = {{"path", options.path}};
    if (!options.against.empty()) report["against"] = options.against;
    report.update(agreement_json(compare_logits(reference, model, tokens_for(model), check_stop)));
  }
  if (options.common.json()) return print_json(report);
  std::string text = "whole and loadable: " + options.path + "\n";
  for (const auto& [key, value] : report.items()) {
    if (!value.is_structured()) text += key + ": " + value.dump() + "\n";
  }
  if (report.contains("exports")) {
    for (const auto& entry : report["exports"]) text += entry.dump() + "\n";
  }
  print(text);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto* command = app.add_subcommand(
      "verify", "Check a run's files against its manifest, reload its exports and compare them");
  const auto options = std::make_shared<Options>();
  command->add_option("path", options->path, "Output folder of a run, or a model")->required();
  command->add_option("--against", options->against, "Compare the logits with this model's");
  add_common(*command, options->common);
  command->callback([options] { verify(*options); });
}

}  // namespace attar::cli
