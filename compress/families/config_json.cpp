#include "compress/core/errors.h"
#include "compress/families/json_keys.h"
#include "compress/families/model_config.h"

namespace attar {
namespace {

struct ActivationName {
  std::string_view name;  // hidden_act of transformers
  Activation activation;
};
constexpr std::array<ActivationName, 6> kActivations = {{
    {"silu", Activation::kSilu},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu", Activation::kGelu},
    {"relu", Activation::kRelu},
    {"swish", Activation::kSilu},
    {"gelu_new", Activation::kGeluTanh},
}};

Activation activation_from(const JsonKeys& keys) {
  const std::string name = keys.has("hidden_act") ? keys.string("hidden_act") : "silu";
  std::string known;
  for (const ActivationName& entry : kActivations) {
    if (entry.name == name) return entry.activation;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  throw BadInput(
      message(keys.where(), "hidden_act '", name, "' is not supported; supported: ", known));
}

std::string_view activation_name(Activation activation) {
  for (const ActivationName& entry : kActivations) {
    if (entry.activation == activation) return entry.name;
  }
  throw std::logic_error("activation_name: unknown activation");
}

// The object that states the rope, in either form; `rope_parameters` may be nested by layer type.
std::optional<JsonKeys> rope_object(const JsonKeys& keys) {
  const std::string_view key = keys.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!keys.has(key)) return std::nullopt;
  const JsonKeys rope = keys.below(key);
  const nlohmann::json& object = rope.object();
  if (object.empty() || !object.begin()->is_object()) return rope;
  for (const auto& nested : object) {
    require(nested == *object.begin(), rope.where(),
            "rotary embeddings that differ by layer type are not supported; all layers must share "
            "one");
  }
  return rope.below(object.begin().key());
}

Rope rope_from(const JsonKeys& keys) {
  Rope rope;
  rope.theta = keys.number_or("rope_theta", 10000.0);
  const std::optional<JsonKeys> stated = rope_object(keys);
  if (!stated) return rope;
  rope.theta = stated->number_or("rope_theta", rope.theta);
  const double share = stated->number_or("partial_rotary_factor", 1.0);
  require(share == 1.0, stated->where(), "partial_rotary_factor must be 1, got ", share);
  const std::string_view key = stated->has("rope_type") ? "rope_type" : "type";
  const std::string type = stated->has(key) ? stated->string(key) : "default";
  if (type == "default") return rope;
  require(type == "linear" || type == "llama3", stated->where(), "rope type '", type,
          "' is not supported; supported: default, linear, llama3");
  rope.factor = stated->number("factor");
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    return rope;
  }
  rope.scaling = RopeScaling::kLlama3;
  rope.low_frequency_factor = stated->number("low_freq_factor");
  rope.high_frequency_factor = stated->number("high_freq_factor");
  rope.original_positions = stated->integer("original_max_position_embeddings");
  require(rope.low_frequency_factor > 0 && rope.high_frequency_factor > rope.low_frequency_factor &&
              rope.original_positions > 0,
          stated->where(), "needs 0 < low_freq_factor < high_freq_factor and positive ",
          "original_max_position_embeddings, got ", rope.low_frequency_factor, ", ",
          rope.high_frequency_factor, ", ", rope.original_positions);
  return rope;
}

void refuse_window(const JsonKeys& keys, const Family& family, std::int64_t max_positions) {
  if (family.window_key.empty()) return;
  if (!family.window_switch.empty() && !keys.boolean_or(family.window_switch, false)) return;
  if (keys.object().contains(family.window_key) && !keys.has(family.window_key)) return;  // null
  const std::int64_t window = keys.integer_or(family.window_key, family.default_window);
  require(window >= max_positions, keys.where(), family.window_key, " of ", window,
          " is not supported: attention to all of max_position_embeddings = ", max_positions,
          " only; set it to null if the texts are shorter than the window");
}

// An id, or the first of a list of ids.
std::optional<std::int64_t> token_id(const JsonKeys& keys, std::string_view key) {
  const nlohmann::json* value = keys.find(key);
  if (value == nullptr || (value->is_array() && value->empty())) return std::nullopt;
  const nlohmann::json& id = value->is_array() ? value->front() : *value;
  require(id.is_number_integer() && id >= 0 && id <= (1 << 30), keys.where(), "key '", key,
          "' must be a token id or a list of ids, got ", value->dump().substr(0, 80));
  return id.get<std::int64_t>();
}

std::int64_t head_dim_from(const JsonKeys& keys, const Family& family, const ModelConfig& config) {
  if (keys.has("head_dim")) return keys.integer("head_dim");
  if (family.default_head_dim > 0) return family.default_head_dim;
  require(config.heads > 0 && config.hidden % config.heads == 0, keys.where(),
          "num_attention_heads must divide hidden_size where there is no head_dim, got ",
          config.heads, " and ", config.hidden);
  return config.hidden / config.heads;
}

}  // namespace

ModelConfig config_from_json(const nlohmann::json& json, std::string_view where) {
  const JsonKeys keys(json, where);
  const Family& family = family_of_model_type(keys.string("model_type"), where);
  ModelConfig config;
  config.family = family.name;
  config.layers = keys.integer("num_hidden_layers");
  config.hidden = keys.integer("hidden_size");
  config.ffn = keys.integer("intermediate_size");
  config.heads = keys.integer("num_attention_heads");
  const bool null_kv_heads = json.contains("num_key_value_heads");
  const std::int64_t kv_heads =
      family.default_kv_heads == 0 || null_kv_heads ? config.heads : family.default_kv_heads;
  config.kv_heads = keys.integer_or("num_key_value_heads", kv_heads);
  config.head_dim = head_dim_from(keys, family, config);
  config.vocabulary = keys.integer("vocab_size");
  config.max_positions = keys.integer_or("max_position_embeddings", family.default_max_positions);
  config.norm_eps = keys.number_or("rms_norm_eps", family.default_norm_eps);
  config.activation = activation_from(keys);
  config.rope = rope_from(keys);
  config.head_norms = family.head_norms;
  config.tied_head = keys.boolean_or("tie_word_embeddings", false);
  config.bos = token_id(keys, "bos_token_id");
  config.eos = token_id(keys, "eos_token_id");
  refuse_window(keys, family, config.max_positions);
  check(config, where);
  return config;
}

Biases biases_from_json(const nlohmann::json& json, const Family& family, std::string_view where) {
  const JsonKeys keys(json, where);
  Biases biases{};
  for (const Role role : kRoles) {
    const BiasRule& rule = family.bias_rule(role);
    biases[index_of(role)] = rule.always || (!rule.key.empty() && keys.boolean_or(rule.key, false));
  }
  return biases;
}

nlohmann::ordered_json config_to_json(const ModelConfig& config, const Biases& biases,
                                      std::string_view type) {
  const Family& family = family_named(config.family);
  nlohmann::ordered_json json = {
      {"architectures", {family.architecture}}, {"model_type", family.name},
      {"hidden_size", config.hidden},           {"intermediate_size", config.ffn},
      {"num_hidden_layers", config.layers},     {"num_attention_heads", config.heads},
      {"num_key_value_heads", config.kv_heads}, {"head_dim", config.head_dim},
      {"vocab_size", config.vocabulary},        {"max_position_embeddings", config.max_positions},
      {"rms_norm_eps", config.norm_eps},        {"hidden_act", activation_name(config.activation)},
  };
  for (const Role role : kRoles) {
    const BiasRule& rule = family.bias_rule(role);
    const bool bias = biases[index_of(role)];
    if (!rule.key.empty()) json[rule.key] = bias || json.value(std::string(rule.key), false);
    require<DoesNotFit>(!bias || rule.always || !rule.key.empty(),
                        "config.json of " + config.family, short_name(role),
                        " has a bias, which this family cannot ", "state; export as gguf");
  }
  if (!family.window_key.empty()) json[family.window_key] = nullptr;
  const Rope rope = recognize_llama3(config);
  require<DoesNotFit>(rope.stored_factors.empty(), "config.json of " + config.family,
                      "the model stores rotary factors that no known scaling makes; only gguf can "
                      "hold them");
  nlohmann::ordered_json scaling;
  if (rope.scaling == RopeScaling::kLinear) {
    scaling = {{"rope_type", "linear"}, {"type", "linear"}, {"factor", rope.factor}};
  } else if (rope.scaling == RopeScaling::kLlama3) {
    scaling = {{"rope_type", "llama3"},
               {"factor", rope.factor},
               {"low_freq_factor", rope.low_frequency_factor},
               {"high_freq_factor", rope.high_frequency_factor},
               {"original_max_position_embeddings", rope.original_positions}};
  }
  json["rope_theta"] = rope.theta;
  json["rope_scaling"] = scaling;
  nlohmann::ordered_json parameters =
      scaling.is_null() ? nlohmann::ordered_json{{"rope_type", "default"}} : scaling;
  parameters["rope_theta"] = rope.theta;
  json["rope_parameters"] = parameters;
  json["tie_word_embeddings"] = config.tied_head;
  if (config.bos) json["bos_token_id"] = *config.bos;
  if (config.eos) json["eos_token_id"] = *config.eos;
  json["torch_dtype"] = type;
  json["dtype"] = type;
  return json;
}

}  // namespace attar
