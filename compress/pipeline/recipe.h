// A recipe: which model, which passes in which order, what to measure, what to write.
//
//   version: 1
//   seed: 7
//   model: models/SmolLM2-135M
//   calibration: {text: data/c4.txt, sequences: 128, length: 512}
//   passes:                       # an ordered list; a pass may appear twice
//     - quantize.awq: {}
//     - {pass: quantize.gptq, bits: 4, group_size: 64}
//   gate: {kl_mean: 0.05, action: stop}
//   eval:
//     - perplexity: {text: data/wiki.test.raw}
//     - arc_easy: {path: data, limit: 100}
//   eval_after_every_pass: true   # also after each pass (neighbouring block-wise ones together)
//   export:
//     - {format: gguf, type: Q4_1, path: model.gguf}
//   chat: ["What is a leap year?"]
//
// A relative path is looked for beside the recipe file and, if it is not there, in the working
// directory; a path given by an override is looked for in the working directory alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/calibrate/calibration_text.h"
#include "compress/core/pass.h"
#include "compress/pipeline/recipe_steps.h"

namespace attar {

struct Recipe {
  std::filesystem::path file;  // where it was read; for messages
  std::uint64_t seed = 0;
  std::string model;                             // resolved path
  int threads = 0;                               // 0: as many as the machine has
  bool strict = false;                           // numeric fallbacks are refused
  std::optional<CalibrationConfig> calibration;  // text paths resolved
  std::vector<PassStep> passes;
  std::optional<GateConfig> gate;
  std::vector<EvalStep> evals;
  bool eval_after_every_pass = false;
  std::vector<ExportStep> exports;
  std::vector<std::string> chat;  // questions answered before and after

  // Every file and folder that it reads or keeps for later runs (store, cache).
  std::vector<std::string> paths_read() const;

  // Every value as it holds, with the passes' defaults filled in: what the manifest keeps.
  nlohmann::json resolved(const PassRegistry& registry) const;
  // The same without what cannot change a weight (threads, batch, gate, eval, export, chat): what
  // a checkpoint depends on, beside the model's bytes.
  nlohmann::json deciding(const PassRegistry& registry) const;
};

// "passes.1.bits=3": sets one value of the recipe before it is read. List entries count from 0; a
// step out of range or through a scalar is a UsageError, a value that is no YAML a BadInput.
// `passes.1.bits` reaches into both forms of a step.
void apply_override(nlohmann::json& document, std::string_view assignment);

// Reads a parsed document. Unknown keys, wrong types and values out of range are UsageErrors with
// the key's place; passes are made once to check their options. No model is needed.
Recipe read_recipe(const nlohmann::json& document, const std::filesystem::path& file,
                   const PassRegistry& registry);

// YAML (or JSON) file, overrides, read_recipe.
Recipe load_recipe(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const PassRegistry& registry);

// Where a relative path of a recipe leads: beside `file`, else in the working directory. A path
// that exists at neither place stays relative to the working directory.
std::string resolve_path(const std::string& path, const std::filesystem::path& file);

// The recipe as YAML text that reads back to the same recipe.
std::string to_yaml(const nlohmann::json& resolved);

}  // namespace attar
