#include "compress/cli/runtime_option.h"
#include "compress/cli/signals.h"
#include "compress/cli/terminal_progress.h"
#include "compress/pipeline/evaluate.h"
#include "eval/table.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string original, changed, text;
  std::int64_t length = 1024, windows = 0, kv_bits = 32;
};

std::string show(const nlohmann::json& json) {
  std::vector<std::vector<std::string>> rows = {{"metric", "value", "95 % interval"}};
  for (const char* key : {"perplexity_before", "perplexity_after", "perplexity_ratio", "kl_mean",
                          "kl_median", "kl_p90", "kl_p95", "kl_p99", "kl_p99.9", "top1"}) {
    const auto& entry = json.at(key);
    rows.push_back(
        {key, entry.at("value").dump(), entry.at("low").dump() + " .. " + entry.at("high").dump()});
  }
  rows.push_back({"kl_max", json.at("kl_max").dump(), ""});
  return eval::markdown_table(rows, {false, true, true});
}

void compare(const Options& options) {
  use_threads(options.common);
  TerminalProgress progress;
  RunContext context;
  context.stop = &stop_flag();
  const nlohmann::json json = compare_models(
      options.original, options.changed,
      {options.text, options.length, options.windows, options.kv_bits}, context, progress);
  progress.note("");
  if (options.common.json()) return print_json(nlohmann::ordered_json(json));
  print(show(json));
}

}  // namespace

void add_compare(CLI::App& app) {
  auto* command = app.add_subcommand(
      "compare", "KL, agreement and perplexity of two versions of a model on a text");
  const auto options = std::make_shared<Options>();
  command->add_option("original", options->original, "Model that is right by definition")
      ->required();
  command->add_option("changed", options->changed, "Model to judge")->required();
  command->add_option("--text", options->text, "Text file, UTF-8")->required();
  command->add_option("--length", options->length, "Tokens a window")
      ->check(CLI::Range(8, 1 << 17));
  command->add_option("--windows", options->windows, "The first so many; 0: all")
      ->check(CLI::Range(0, 1 << 20));
  add_kv_bits(*command, options->kv_bits);
  add_common(*command, options->common);
  command->callback([options] { compare(*options); });
}

}  // namespace attar::cli
