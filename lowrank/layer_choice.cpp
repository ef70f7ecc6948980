#include "lowrank/layer_choice.h"

#include "compress/core/errors.h"

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

FactorStorage FactorConfig::storage(std::string_view where) const {
  require<UsageError>(bits != 1, where, "bits must be 0 or in [2, 8], got 1");
  return {type == "f16"    ? at::kHalf
          : type == "bf16" ? at::kBFloat16
                           : at::kFloat,
          bits, group_size};
}

double parameters_of(const LinearShape& shape, std::int64_t rank, const FactorStorage& storage) {
  const auto grid = grid_of(storage, rank, shape.in);
  const double left = grid ? grid->bits_per_weight(rank) / 16 : 1;
  const double right = grid ? grid->bits_per_weight(shape.in) / 16 : 1;
  return static_cast<double>(rank) *
         (left * static_cast<double>(shape.out) + right * static_cast<double>(shape.in)) /
         static_cast<double>(shape.out * shape.in);
}

}  // namespace attar
