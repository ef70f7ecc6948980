// What every subcommand offers: options declared on a CLI11 app, then one call. Results go to
// stdout, progress and log to stderr.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/pipeline/measure.h"

namespace attar::cli {

// Options that several subcommands share.
struct Common {
  std::string output = "table";  // or "json"
  int threads = 0;               // 0: the recipe's, else as many as the machine has
  bool json() const { return output == "json"; }
};

using Action = std::function<void()>;

// Each adds its subcommand to `app`; its callback is the action.
void add_inspect(CLI::App& app);
void add_plan(CLI::App& app);
void add_run(CLI::App& app);  // also `resume`
void add_evaluate(CLI::App& app);
void add_compare(CLI::App& app);
void add_generate(CLI::App& app);
void add_export(CLI::App& app);
void add_importance(CLI::App& app);
void add_verify(CLI::App& app);
void add_recipes(CLI::App& app);
void add_doctor(CLI::App& app);
void add_quantize(CLI::App& app);
void add_passes(CLI::App& app);
void add_report(CLI::App& app);
void add_short_forms(CLI::App& app);  // prune, factorize, distill

// -o / --output and --threads.
void add_common(CLI::App& command, Common& common);
// Sets the threads of this process: the option, else `recipe_threads`, else the machine's.
void use_threads(const Common& common, int recipe_threads = 0);

// Runs `read` on a file that attar wrote and somebody may have edited: a key that is not there, or
// not of its type, is BadInput.
void reading(const std::filesystem::path& file, const std::function<void()>& read);

// Prints JSON (indented) or text to stdout. Throws IoError when stdout is closed.
void print_json(const nlohmann::ordered_json& json);
void print(std::string_view text);

// All passes, and the language model of compress/runtime.
const Engine& engine();

}  // namespace attar::cli
