// Which layers a pass touches, for passes that treat all of them alike.
#pragma once

#include <string>
#include <vector>

#include "compress/core/pass.h"
#include "compress/core/rules.h"

namespace attar {

struct LayerChoiceConfig {
  std::vector<std::string> layers = {"*"};
  std::vector<std::string> skip;

  template <class Visit>
  static void layer_fields(Visit&& visit) {
    using C = LayerChoiceConfig;
    visit("layers", &C::layers, Any{},
          "Layers to change: role (down), name (mlp.*) or full name, with * ? [..].");
    visit("skip", &C::skip, Any{}, "Layers to leave alone, of those.");
  }
};

struct LayerDecision {
  bool changes = false;
  std::string rule;  // "layers '*'", "skip 'v'", "no pattern of layers"
};

LayerDecision decide(const LayerChoiceConfig& config, std::int64_t block, Role role);

// One entry a linear layer, `action` for those that change. Throws UsageError for a pattern that
// matches nothing.
std::vector<PlannedLayer> plan_layers(const LayerChoiceConfig& choice, const ModelConfig& config,
                                      std::string_view where, const std::string& action);

}  // namespace attar
