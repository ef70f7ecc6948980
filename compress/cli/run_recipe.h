// Runs a recipe with progress, signals and the closing table: `run` and the short forms.
#pragma once

#include <string>

#include "compress/cli/command.h"
#include "compress/pipeline/recipe.h"

namespace attar::cli {

void run_recipe(const Recipe& recipe, const std::string& out, bool replace, const Common& common);

}  // namespace attar::cli
