#include "compress/core/layer_choice.h"

namespace attar {

LayerDecision decide(const LayerChoiceConfig& config, std::int64_t block, Role role) {
  if (const std::string* skipped = first_match(config.skip, block, role)) {
    return {false, "skip '" + *skipped + "'"};
  }
  if (const std::string* chosen = first_match(config.layers, block, role)) {
    return {true, "layers '" + *chosen + "'"};
  }
  return {false, "no pattern of layers"};
}

std::vector<PlannedLayer> plan_layers(const LayerChoiceConfig& choice, const ModelConfig& config,
                                      std::string_view where, const std::string& action) {
  require_matches(choice.layers, config, std::string(where) + ".layers");
  require_matches(choice.skip, config, std::string(where) + ".skip");
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      const LayerDecision decision = decide(choice, block, role);
      planned.push_back(
          {block, role, decision.changes, decision.rule, decision.changes ? action : "unchanged"});
    }
  }
  return planned;
}

}  // namespace attar
