// A list of values where a recipe takes one: several runs, and which of them are worth having.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/pipeline/run.h"

namespace attar {

struct SweepRun {
  std::string name;  // "passes.1.bits=3,seed=2", fit for a folder; empty where nothing is swept
  Recipe recipe;
};

// The runs that the overrides ask for: KEY=[a, b] where the recipe refuses the list and takes its
// first entry, and every such key with every other, the last one fastest. All recipes are read
// before any of them runs. Throws what load_recipe throws.
std::vector<SweepRun> sweep_runs(const std::filesystem::path& file,
                                 const std::vector<std::string>& overrides,
                                 const PassRegistry& registry);

// What became of a run: its results, or why there are none.
struct SweepOutcome {
  std::string name;
  RunResult result;
  std::string refusal;
};

// Markdown, a row a run, and a line below for each that was refused: bytes of the first export,
// bits a weight, KL and perplexity on the first text; "*" where no other run has at most as many
// bytes and bits and at most the KL.
std::string sweep_table(const std::vector<SweepOutcome>& outcomes);

// {name: results.json, or {"refused": why}}.
nlohmann::ordered_json sweep_json(const std::vector<SweepOutcome>& outcomes);

}  // namespace attar
