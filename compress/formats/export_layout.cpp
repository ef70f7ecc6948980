#include "compress/formats/export_layout.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/max.h>
#include <ATen/ops/sub.h>

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"

namespace attar {
namespace {

WeightState state_from(const StoredWeight& stored, std::string layer, WeightShape shape) {
  const bool rounds = stored.scheme && stored.scheme->token_grid();
  return {std::move(layer), shape, stored.scheme, stored.dense_type, false, stored.bias, rounds};
}

// Of a block that stands at `block` and was block `origin` of the source.
WeightState block_state(const ModelSource& source, const ModelConfig& config, std::int64_t block,
                        std::int64_t origin, Role role) {
  const LinearShape shape = shape_of(config, block, role);
  return state_from(stored_weight(source, origin, role), layer_name(block, role),
                    {shape.out, shape.in});
}

ModelStates outer_states(const ModelSource& source, const ModelConfig& config) {
  const WeightShape shape{config.vocabulary, config.hidden};
  ModelStates states;
  states.config = config;
  states.embedding = state_from(stored_embedding(source), "model.embed_tokens", shape);
  if (!config.tied_head) states.head = state_from(stored_head(source), "lm_head", shape);
  const ModelConfig& original = source.config();
  if (config.hidden == original.hidden) return states;  // rows that go leave the others' grids
  for (WeightState* state : {&states.embedding, states.head ? &*states.head : nullptr}) {
    if (state) state->scheme.reset(), state->rounds_input = false;
  }
  return states;
}

// What a weight is after passes have written it.
void take_weight(WeightState& state, const Weight& weight) {
  const std::optional<QuantScheme> before = state.scheme;
  state.scheme.reset();
  state.dense_type = at::kFloat;
  if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) {
    state.scheme = quantized->scheme;
  } else if (const auto* plain = std::get_if<DenseWeight>(&weight)) {
    state.dense_type = plain->values.scalar_type();
  }
  state.by_pass = state.scheme != before;
  state.rounds_input = token_grid(weight).has_value();
}

// What a plan says of a weight, if it names it.
void take_plan(WeightState& state, const PlannedModel& planned) {
  const auto found = planned.layers.find(state.layer);
  if (found == planned.layers.end()) return;
  const bool stays = planned.terms.contains(state.layer) && state.rounds_input;
  state.scheme = found->second;
  state.by_pass = true;
  state.rounds_input = state.scheme ? state.scheme->token_grid().has_value()
                                    : stays || planned.rounds_input.contains(state.layer);
  state.dense_type = at::kFloat;
}

}  // namespace

ModelStates planned_states(const ModelSource& source, const PlannedModel& planned) {
  const ModelConfig& config = planned.config;
  ModelStates states = outer_states(source, config);
  std::size_t known = planned.layers.count(states.embedding.layer);
  take_plan(states.embedding, planned);
  if (states.head) {
    known += planned.layers.count(states.head->layer);
    take_plan(*states.head, planned);
  }
  for (std::int64_t i = 0; i < config.layers; ++i) {
    for (const Role role : kRoles) known += planned.layers.count(layer_name(i, role));
  }
  require<UsageError>(known == planned.layers.size(), "export", planned.layers.size() - known,
                      " of the planned layers are not layers of ", source.path());
  states.block = [&source, planned](std::int64_t block) {
    std::vector<WeightState> roles;
    for (const Role role : kRoles) {
      WeightState state = block_state(source, planned.config, block, block, role);
      take_plan(state, planned);
      roles.push_back(std::move(state));
    }
    return roles;
  };
  return states;
}

ModelStates current_states(const Model& model) {
  ModelStates states = outer_states(model.source(), model.config());
  if (model.outer_changed()) {
    take_weight(states.embedding, model.embedding());
    if (states.head) take_weight(*states.head, model.head());
  }
  states.block = [&model](std::int64_t index) {
    std::vector<WeightState> roles;
    for (const Role role : kRoles) {
      roles.push_back(
          block_state(model.source(), model.config(), index, model.source_block(index), role));
    }
    if (!model.changed(index)) return roles;
    const Block block = model.block(index);
    for (const Role role : roles_of(block)) {
      WeightState& state = roles[index_of(role)];
      take_weight(state, block[role].weight);
      state.bias = block[role].bias.defined();
    }
    return roles;
  };
  return states;
}

at::ScalarType source_dense_type(const ModelSource& source) {
  const StoredWeight stored = stored_weight(source, 0, Role::kDown);
  return stored.scheme ? stored.scheme->scale_type : stored.dense_type;
}

double largest_difference(const at::Tensor& written, const at::Tensor& original,
                          std::string_view tensor, std::string_view type) {
  const double difference = at::max(at::abs(at::sub(written, original))).item<float>();
  refuse_if_not_finite(difference, original, tensor, type);
  return difference;
}

void refuse_if_not_finite(double difference, const at::Tensor& original, std::string_view tensor,
                          std::string_view type) {
  if (std::isfinite(difference)) return;
  require<NumericRefusal>(at::isfinite(original).all().item<bool>(), tensor,
                          "the model holds a NaN or an infinity here");
  throw NumericRefusal(
      message(tensor, "holds a value beyond the range of ", type, "; choose bf16 or f32"));
}

std::vector<std::string> replaceable_models(const ExportOptions& options) {
  if (!options.replace) return {};
  return {"config.json", "adapter_config.json"};
}

std::int64_t rows_at_once(std::int64_t columns) {
  return std::max<std::int64_t>(1, (std::int64_t{1} << 20) / std::max<std::int64_t>(1, columns));
}

void add(ExportReport& report, TensorExport tensor) {
  const bool plain = tensor.how == "plain values" || tensor.how == "low-rank term";
  if (plain && tensor.max_difference > report.max_rounding) {
    report.max_rounding = tensor.max_difference;
    report.max_rounding_tensor = tensor.tensor;
  }
  report.tensors.push_back(std::move(tensor));
}

void add(ExportPlan& plan, TensorExport tensor) {
  plan.largest_tensor = std::max(plan.largest_tensor, tensor.bytes);
  plan.tensors.push_back(std::move(tensor));
}

}  // namespace attar
