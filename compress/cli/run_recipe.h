// Runs a recipe with progress, signals and the closing table: `run` and the short forms.
#pragma once

#include <string>

#include "compress/cli/command.h"
#include "compress/pipeline/recipe.h"

namespace attar::cli {

// An eval list: the KL on a text, in windows of 1024 tokens or as many as the model reads.
nlohmann::json divergence_on(const std::string& text, const std::string& model);

void run_recipe(const Recipe& recipe, const std::string& out, bool replace, const Common& common);

}  // namespace attar::cli
