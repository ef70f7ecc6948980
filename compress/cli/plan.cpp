#include "compress/pipeline/plan.h"

#include "compress/cli/command.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string recipe, out;
  std::vector<std::string> overrides;
  bool every_tensor = false;
};

void plan(const Options& options) {
  const Recipe recipe = load_recipe(options.recipe, options.overrides, *engine().registry);
  use_threads(options.common, recipe.threads);
  PlanOptions plan_options;
  if (!options.out.empty()) plan_options.out = options.out;
  const Plan planned = make_plan(recipe, *engine().registry, plan_options);
  if (options.common.json()) return print_json(nlohmann::ordered_json(to_json(planned)));
  print(to_table(planned, options.every_tensor));
}

}  // namespace

void add_plan(CLI::App& app) {
  auto* command = app.add_subcommand(
      "plan", "Say from headers alone what a run would do, and find what would go wrong");
  const auto options = std::make_shared<Options>();
  command->add_option("recipe", options->recipe, "Recipe file")->required();
  command->add_option("overrides", options->overrides, "KEY=VALUE, as passes.0.bits=3");
  command->add_option("--out", options->out, "Output folder, to check space and permission");
  command->add_flag("--every-tensor", options->every_tensor, "Do not fold equal blocks");
  add_common(*command, options->common);
  command->callback([options] { plan(*options); });
}

}  // namespace attar::cli
