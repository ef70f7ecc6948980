#include <algorithm>
#include <set>

#include "compress/core/errors.h"
#include "compress/families/json_keys.h"
#include "compress/formats/compressed_tensors.h"
#include "compress/formats/tensor_view.h"

namespace attar {
namespace {

// Every key of the library's own schema: it refuses unknown ones and fills in missing ones.
nlohmann::ordered_json weights_of(const QuantScheme& scheme) {
  nlohmann::ordered_json weights = {{"num_bits", scheme.bits},
                                    {"type", scheme.floating() ? "float" : "int"},
                                    {"symmetric", scheme.zero_point == ZeroPoint::kSymmetric},
                                    {"strategy", scheme.group_size == 0 ? "channel" : "group"},
                                    {"group_size", nullptr},
                                    {"dynamic", false},
                                    {"actorder", nullptr},
                                    {"block_structure", nullptr},
                                    {"observer", "minmax"},
                                    {"observer_kwargs", nlohmann::ordered_json::object()}};
  if (scheme.group_size != 0) weights["group_size"] = scheme.group_size;
  if (scheme.block == BlockGrid::kMxfp4) weights["scale_dtype"] = "torch.uint8";
  return weights;
}

// Every token to 8 bits with a scale of its own, found when it comes: compressed-tensors' W8A8 and
// FP8_DYNAMIC.
nlohmann::ordered_json activations_of(const QuantScheme& scheme) {
  if (scheme.activation_bits == 0) return nullptr;
  return {{"num_bits", scheme.activation_bits},
          {"type", scheme.floating() ? "float" : "int"},
          {"symmetric", true},
          {"strategy", "token"},
          {"group_size", nullptr},
          {"dynamic", true},
          {"actorder", nullptr},
          {"block_structure", nullptr},
          {"observer", nullptr},
          {"observer_kwargs", nlohmann::ordered_json::object()}};
}

std::string format_of(const QuantScheme& scheme) {
  if (scheme.block == BlockGrid::kFp8) return "float-quantized";
  if (scheme.block == BlockGrid::kMxfp4) return "mxfp4-pack-quantized";
  return scheme.activation_bits != 0 ? "int-quantized" : "pack-quantized";
}

nlohmann::ordered_json group_of(const QuantScheme& scheme, std::vector<std::string> targets) {
  return {{"targets", std::move(targets)},
          {"format", format_of(scheme)},
          {"weights", weights_of(scheme)},
          {"input_activations", activations_of(scheme)},
          {"output_activations", nullptr}};
}

// 8, or a refusal of what is not read; `type` is that of the weights.
int activation_bits_from(const JsonKeys& args, const std::string& type) {
  const std::string own = args.has("type") ? args.string("type") : "int";
  const bool known = args.integer("num_bits") == 8 && own == type &&
                     args.boolean_or("symmetric", true) && args.has("strategy") &&
                     args.string("strategy") == "token" && args.boolean_or("dynamic", false);
  require(known, args.where(),
          "quantized activations are supported beside these weights as 8 bits, ", type,
          ", symmetric, dynamic, strategy token");
  return 8;
}

// Weights of type "float", or a refusal of what is not read.
QuantScheme number_format_from(const JsonKeys& group, const JsonKeys& weights) {
  const std::int64_t bits = weights.integer("num_bits");
  const std::string strategy = weights.string("strategy");
  const bool symmetric = weights.boolean_or("symmetric", true);
  const std::string format = group.has("format") ? group.string("format") : "float-quantized";
  if (bits == 8 && symmetric && strategy == "channel") {
    require(format == "float-quantized" || format == "naive-quantized", group.where(), "format '",
            format, "' is not supported for 8 bits; supported: float-quantized");
    QuantScheme scheme = block_scheme(BlockGrid::kFp8);
    if (group.has("input_activations")) {
      scheme.activation_bits = activation_bits_from(group.below("input_activations"), "float");
    }
    return scheme;
  }
  require(bits == 4 && symmetric && strategy == "group" && weights.integer("group_size") == 32 &&
              format == "mxfp4-pack-quantized",
          weights.where(),
          "weights of type float are supported as 8 bits, symmetric, channel (float-quantized) and "
          "as 4 bits, symmetric, group 32 (mxfp4-pack-quantized)");
  require(!group.has("input_activations"), group.where(),
          "activations beside weights of type float and 4 bits are not supported; supported: "
          "weights alone");
  return block_scheme(BlockGrid::kMxfp4);
}

QuantScheme scheme_from(const JsonKeys& group) {
  require(!group.has("output_activations"), group.where(),
          "quantized output activations are not supported, only those that layers read");
  if (const JsonKeys weights = group.below("weights");
      weights.has("type") && weights.string("type") == "float") {
    return number_format_from(group, weights);
  }
  const bool rounds = group.has("input_activations");
  const std::string format = group.has("format") ? group.string("format")
                             : rounds            ? "int-quantized"
                                                 : "pack-quantized";
  require(format == (rounds ? "int-quantized" : "pack-quantized"), group.where(), "format '",
          format,
          rounds ? "' with activations is not supported; supported: int-quantized"
                 : "' is not supported; supported: pack-quantized, and int-quantized with "
                   "input_activations");
  const JsonKeys weights = group.below("weights");
  const std::string type = weights.has("type") ? weights.string("type") : "int";
  require(type == "int", weights.where(), "type '", type,
          "' is not supported; supported: int, float");
  QuantScheme scheme;
  scheme.bits = static_cast<int>(weights.integer("num_bits"));
  require(scheme.bits == 2 || scheme.bits == 4 || scheme.bits == 8, weights.where(),
          "num_bits must be 2, 4 or 8, got ", scheme.bits);
  const bool symmetric = weights.boolean_or("symmetric", true);
  scheme.zero_point = symmetric ? ZeroPoint::kSymmetric : ZeroPoint::kInteger;
  const std::string strategy = weights.string("strategy");
  require(strategy == "group" || strategy == "channel", weights.where(), "strategy '", strategy,
          "' is not supported; supported: group, channel");
  if (strategy == "group") {
    scheme.group_size = weights.integer("group_size");
    require(scheme.group_size > 0, weights.where(), "group_size must be positive, got ",
            scheme.group_size);
  }
  if (rounds) {
    scheme.activation_bits = activation_bits_from(group.below("input_activations"), "int");
    require(scheme.bits == 8 && symmetric && strategy == "channel", weights.where(),
            "with rounded activations weights are supported as 8 bits, symmetric, channel");
  }
  require(!weights.has("actorder") || weights.string("actorder") != "group", weights.where(),
          "actorder 'group' is not supported: groups must be contiguous");
  return scheme;
}

std::vector<std::string> names_below(const JsonKeys& keys, std::string_view key) {
  std::vector<std::string> names;
  const nlohmann::json* list = keys.find(key);
  if (list == nullptr) return names;
  require(list->is_array(), keys.where(), "key '", key, "' must be a list");
  for (const nlohmann::json& entry : *list) {
    require(entry.is_string(), keys.where(), "key '", key, "' must hold strings");
    names.push_back(entry.get<std::string>());
    require(!names.back().starts_with("re:"), keys.where(), "pattern '", names.back(), "' in '",
            key, "' is not supported; supported: module names and Linear");
  }
  return names;
}

// What the scales are rounded to that the file holds as float32, if it is one type and not float32.
std::optional<at::ScalarType> type_of_widened_scales(
    const std::map<std::string, QuantScheme>& layers) {
  std::set<at::ScalarType> types;
  for (const auto& [name, scheme] : layers) {
    if (!scheme.floating() && stored_scale_type(scheme) == at::kFloat)
      types.insert(scheme.scale_type);
  }
  if (types.size() != 1 || *types.begin() == at::kFloat) return std::nullopt;
  return *types.begin();
}

at::ScalarType scale_type_in(const JsonKeys& config) {
  if (!config.has("scale_type")) return at::kFloat;
  const std::string name = config.string("scale_type");
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kFloat}) {
    if (name == long_name(type)) return type;
  }
  throw BadInput(message(config.where(), "scale_type '", name,
                         "' is not supported; supported: float16, bfloat16, float32"));
}

}  // namespace

bool any_asymmetric(const std::map<std::string, QuantScheme>& layers) {
  return std::any_of(layers.begin(), layers.end(), [](const auto& layer) {
    return layer.second.zero_point == ZeroPoint::kInteger;
  });
}

bool any_mxfp4(const std::map<std::string, QuantScheme>& layers) {
  return std::any_of(layers.begin(), layers.end(),
                     [](const auto& layer) { return layer.second.block == BlockGrid::kMxfp4; });
}

nlohmann::ordered_json quantization_config(const std::map<std::string, QuantScheme>& layers,
                                           const std::vector<std::string>& dense) {
  std::vector<std::pair<QuantScheme, std::vector<std::string>>> groups;
  for (const auto& [name, scheme] : layers) {
    QuantScheme key = scheme;
    key.scale_type = at::kFloat;  // not the group's to tell
    const auto same = std::find_if(groups.begin(), groups.end(),
                                   [&](const auto& group) { return group.first == key; });
    if (same == groups.end()) {
      groups.push_back({key, {name}});
    } else {
      same->second.push_back(name);
    }
  }
  const bool mixed = groups.size() > 1;
  nlohmann::ordered_json config_groups = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const std::vector<std::string> everything = {"Linear"};
    config_groups["group_" + std::to_string(i)] =
        group_of(groups[i].first, mixed ? groups[i].second : everything);
  }
  nlohmann::ordered_json config = {
      {"quant_method", "compressed-tensors"},
      {"format", mixed ? "mixed-precision" : format_of(groups[0].first)},
      {"quantization_status", "compressed"},
      {"version", "0.18.0"},
      {"global_compression_ratio", nullptr},
      {"ignore", dense},
      {"kv_cache_scheme", nullptr},
      {"sparsity_config", nlohmann::ordered_json::object()},
      {"transform_config", nlohmann::ordered_json::object()},
      {"config_groups", config_groups}};
  // transformers 5 with compressed-tensors up to 0.20 keeps asymmetric layers compressed by a path
  // that expects their zero points unpacked, and fails; told so, it dequantizes while loading, but
  // with one scheme for all layers. MXFP4 it would give bfloat16 weights in a model of any type.
  // Other programs ignore the key.
  if (!mixed && (any_asymmetric(layers) || any_mxfp4(layers))) config["dequantize"] = true;
  if (const auto type = type_of_widened_scales(layers)) config["scale_type"] = long_name(*type);
  return config;
}

SchemeOf schemes_from_config(const nlohmann::json& config, std::string_view where) {
  const JsonKeys keys(config, std::string(where) + ": quantization_config");
  const std::string method = keys.string("quant_method");
  require(method == "compressed-tensors", keys.where(), "quant_method '", method,
          "' is not supported; supported: compressed-tensors");
  for (const std::string_view key : {"sparsity_config", "transform_config"}) {
    const nlohmann::json* value = keys.find(key);
    require(value == nullptr || value->empty(), keys.where(), key, " is not supported");
  }
  require(!keys.has("kv_cache_scheme"), keys.where(), "kv_cache_scheme is not supported");
  std::map<std::string, QuantScheme, std::less<>> by_name;
  std::optional<QuantScheme> every_linear;
  const JsonKeys groups = keys.below("config_groups");
  const at::ScalarType scale_type = scale_type_in(keys);
  for (const auto& [name, value] : groups.object().items()) {
    const JsonKeys group = groups.below(name);
    QuantScheme scheme = scheme_from(group);
    if (!scheme.floating()) scheme.scale_type = scale_type;
    for (std::string& target : names_below(group, "targets")) {
      if (target == "Linear") {
        every_linear = scheme;
      } else {
        by_name.emplace(std::move(target), scheme);
      }
    }
  }
  const std::vector<std::string> ignored = names_below(keys, "ignore");
  return [by_name, every_linear,
          ignore = std::set<std::string, std::less<>>(ignored.begin(), ignored.end())](
             std::string_view module) -> std::optional<QuantScheme> {
    if (ignore.contains(module)) return std::nullopt;
    const auto named = by_name.find(module);
    return named == by_name.end() ? every_linear : std::optional(named->second);
  };
}

}  // namespace attar
