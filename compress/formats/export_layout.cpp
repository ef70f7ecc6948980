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
  return {std::move(layer), shape, stored.scheme, stored.dense_type, false, stored.bias};
}

WeightState block_state(const ModelSource& source, std::int64_t block, Role role) {
  const LinearShape shape = shape_of(source.config(), role);
  return state_from(stored_weight(source, block, role), layer_name(block, role),
                    {shape.out, shape.in});
}

ModelStates source_states(const ModelSource& source) {
  const ModelConfig& config = source.config();
  const WeightShape shape{config.vocabulary, config.hidden};
  ModelStates states;
  states.embedding = state_from(stored_embedding(source), "model.embed_tokens", shape);
  if (!config.tied_head) states.head = state_from(stored_head(source), "lm_head", shape);
  return states;
}

}  // namespace

ModelStates planned_states(const ModelSource& source, const PlannedLayers& planned) {
  const ModelConfig& config = source.config();
  std::size_t known = 0;
  for (std::int64_t i = 0; i < config.layers; ++i) {
    for (const Role role : kRoles) known += planned.count(layer_name(i, role));
  }
  require<UsageError>(known == planned.size(), "export", planned.size() - known,
                      " of the planned layers are not layers of ", source.path());
  ModelStates states = source_states(source);
  states.block = [&source, planned](std::int64_t block) {
    std::vector<WeightState> roles;
    for (const Role role : kRoles) {
      WeightState state = block_state(source, block, role);
      const auto found = planned.find(state.layer);
      if (found != planned.end()) {
        state.scheme = found->second;
        state.by_pass = true;
        state.dense_type = at::kFloat;
      }
      roles.push_back(std::move(state));
    }
    return roles;
  };
  return states;
}

ModelStates current_states(const Model& model) {
  ModelStates states = source_states(model.source());
  states.block = [&model](std::int64_t index) {
    std::vector<WeightState> roles;
    for (const Role role : kRoles) roles.push_back(block_state(model.source(), index, role));
    if (!model.changed(index)) return roles;
    const Block block = model.block(index);
    for (const Role role : kRoles) {
      WeightState& state = roles[index_of(role)];
      const std::optional<QuantScheme> before = state.scheme;
      state.scheme.reset();
      state.dense_type = at::kFloat;
      state.bias = block[role].bias.defined();
      if (const auto* quantized = std::get_if<QuantizedWeight>(&block[role].weight)) {
        state.scheme = quantized->scheme;
      } else if (const auto* plain = std::get_if<DenseWeight>(&block[role].weight)) {
        state.dense_type = plain->values.scalar_type();
      }
      state.by_pass = state.scheme != before;
    }
    return roles;
  };
  return states;
}

at::ScalarType source_dense_type(const ModelSource& source) {
  const StoredWeight stored = stored_weight(source, 0, Role::kQuery);
  return stored.scheme ? stored.scheme->scale_type : stored.dense_type;
}

double largest_difference(const at::Tensor& written, const at::Tensor& original,
                          std::string_view tensor, std::string_view type) {
  const double difference = at::max(at::abs(at::sub(written, original))).item<float>();
  if (!std::isfinite(difference)) {
    require<NumericRefusal>(at::isfinite(original).all().item<bool>(), tensor,
                            "the model holds a NaN or an infinity here");
    throw NumericRefusal(
        message(tensor, "holds a value beyond the range of ", type, "; choose bf16 or f32"));
  }
  return difference;
}

std::int64_t rows_at_once(std::int64_t columns) {
  return std::max<std::int64_t>(1, (std::int64_t{4} << 20) / std::max<std::int64_t>(1, columns));
}

void add(ExportReport& report, TensorExport tensor) {
  if (tensor.how == "plain values" && tensor.max_difference > report.max_rounding) {
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
