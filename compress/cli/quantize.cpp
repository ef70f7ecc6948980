#include "compress/cli/command.h"
#include "compress/cli/run_recipe.h"
#include "compress/core/errors.h"

namespace attar::cli {
namespace {

using nlohmann::json;

struct Options {
  Common common;
  std::string model, out, method = "awq+gptq", text, format = "gguf", type, evaluate, grid,
                          embedding;
  int bits = 4;
  std::int64_t group_size = 64, sequences = 128, length = 512, seed = 0;
  bool symmetric = false, tune = false, print_recipe = false, replace = false;
  bool own_grid = false;  // bits, group size or symmetry were given
};

// Without a grid of the user's own a GGUF file gets the smallest type of blocks of 32.
std::string grid_of(const Options& options) {
  const bool chosen = !options.grid.empty() || options.own_grid;
  return chosen || options.format != "gguf" || options.method == "awq" ? options.grid : "IQ4_NL";
}

json passes_of(const Options& options) {
  const std::string type = grid_of(options);
  const json grid = type.empty() ? json{{"bits", options.bits},
                                        {"group_size", options.group_size},
                                        {"symmetric", options.symmetric}}
                                 : json{{"type", type}};
  json passes = json::array();
  if (options.method == "awq+gptq") {
    passes.push_back({{"quantize.awq", json::object()}});
    passes.push_back({{"quantize.gptq", grid}});
  } else {
    passes.push_back({{"quantize." + options.method, grid}});
  }
  // No file holds an embedding on a number format as codes: rounding it would save nothing.
  const bool number_format = block_scheme(block_grid_named(type)).floating();
  const std::string rows = !options.embedding.empty() ? options.embedding
                           : number_format            ? std::string()
                                                      : type;
  if (!rows.empty() && rows != "keep") {
    const std::string method = options.method == "rtn" ? "rtn" : "gptq";
    passes.push_back({{"quantize.embedding", {{"type", rows}, {"method", method}}}});
  }
  if (options.tune) passes.push_back({{"quantize.tune", json::object()}});
  return passes;
}

json document_of(const Options& options) {
  json document = {{"version", 1}, {"seed", options.seed}, {"model", options.model}};
  document["passes"] = passes_of(options);
  if (!options.text.empty()) {
    document["calibration"] = {
        {"text", options.text}, {"sequences", options.sequences}, {"length", options.length}};
  }
  if (!options.evaluate.empty()) {
    document["eval"] = divergence_on(options.evaluate, options.model);
  }
  json exported = {{"format", options.format},
                   {"path", options.format == "gguf" ? "model.gguf" : "model"}};
  if (!options.type.empty()) exported["type"] = options.type;
  document["export"] = json::array({exported});
  return document;
}

void quantize(const Options& options) {
  const Recipe recipe = read_recipe(document_of(options), {}, *engine().registry);
  if (options.print_recipe) return print(to_yaml(recipe.resolved(*engine().registry)));
  require<UsageError>(!options.out.empty(), "quantize",
                      "--out is missing; give an output folder, or --print-recipe");
  run_recipe(recipe, options.out, options.replace, options.common);
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto* command = app.add_subcommand("quantize", "Short form of a recipe with quantizing passes");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--out", options->out, "Output folder");
  command->add_option("--method", options->method, "Which passes")
      ->check(CLI::IsMember({"rtn", "gptq", "awq", "awq+gptq"}))
      ->capture_default_str();
  command->add_option("--grid", options->grid,
                      "GGUF block type or mixture whose codes are chosen (IQ4_NL, Q4_K_M, ...), or "
                      "FP8, MXFP4, NF4 (of linear layers); "
                      "IQ4_NL for gguf unless one of the next three is given");
  const auto* bits = command->add_option("--bits", options->bits, "Bits of a code");
  const auto* group = command->add_option("--group-size", options->group_size,
                                          "Columns that share a scale; 64 unless given");
  const auto* symmetric = command->add_flag("--symmetric", options->symmetric, "No zero points");
  command->add_option("--embedding", options->embedding,
                      "GGUF block type of embedding and head, or keep; as --grid unless given");
  command->add_flag("--tune", options->tune,
                    "Then let scales and norms learn the original's distribution (slow)");
  command->add_option("--text", options->text, "Calibration text (all methods but rtn)");
  command->add_option("--sequences", options->sequences, "Windows of it")->capture_default_str();
  command->add_option("--length", options->length, "Tokens a window")->capture_default_str();
  command->add_option("--seed", options->seed, "Of all random choices")->capture_default_str();
  command->add_option("--eval", options->evaluate, "Text to measure the KL on");
  command->add_option("--format", options->format, "gguf, compressed-tensors or huggingface")
      ->capture_default_str();
  command->add_option("--type", options->type, "Type of the layers in the file");
  command->add_flag("--print-recipe", options->print_recipe,
                    "Print the recipe that gives the same bytes, and stop");
  command->add_flag("--replace", options->replace, "Replace the output folder when it exists");
  add_common(*command, options->common);
  command->callback([=] {
    options->own_grid = bits->count() + group->count() + symmetric->count() > 0;
    require<UsageError>(options->grid.empty() || !options->own_grid, "quantize",
                        "give --grid, or --bits, --group-size and --symmetric, not both");
    quantize(*options);
  });
}

}  // namespace attar::cli
