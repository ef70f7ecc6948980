#include "quantize/scheme_rules.h"

#include "compress/formats/gguf_blocks.h"
#include "compress/formats/gguf_mixture.h"

namespace attar {
namespace {

// The keys that an exception may set.
struct ExceptionFields : SchemeConfig {
  template <class Visit>
  static void fields(Visit&& visit) {
    SchemeConfig::scheme_fields(
        [&](std::string_view name, auto member, const auto& constraint, std::string_view text) {
          if (name != "rules" && name != "skip") visit(name, member, constraint, text);
        });
  }
};

QuantScheme plain_scheme(const GridConfig& config) {
  QuantScheme scheme;
  scheme.bits = config.bits;
  scheme.group_size = config.group_size;
  scheme.zero_point = config.symmetric ? ZeroPoint::kSymmetric : ZeroPoint::kInteger;
  scheme.scale_type = config.scale_type == "f16"    ? at::kHalf
                      : config.scale_type == "bf16" ? at::kBFloat16
                                                    : at::kFloat;
  return scheme;
}

void check_activations(const SchemeConfig& config, const std::string& where) {
  require<UsageError>(config.activations == 0 || config.activations == 8, where,
                      "activations must be 0 or 8, got ", config.activations);
  require<UsageError>(config.activations == 0 || config.type.empty() || config.type == "FP8", where,
                      "activations are rounded beside integer codes and beside FP8, not beside ",
                      config.type, "; set activations: 0 there, or another type");
}

// FP8, MXFP4, NF4; nothing for types of GGUF.
std::optional<QuantScheme> number_format(const std::string& type) {
  const QuantScheme scheme = block_scheme(block_grid_named(type));
  return scheme.floating() ? std::optional(scheme) : std::nullopt;
}

bool sets_grid(const nlohmann::json& rule) {
  return rule.contains("bits") || rule.contains("group_size") || rule.contains("symmetric");
}

// Group sizes to propose: the largest power of two up to `group` that divides, and whole rows.
std::string fitting_groups(std::int64_t group, std::int64_t columns) {
  std::int64_t fitting = 1;
  while (2 * fitting <= group && columns % (2 * fitting) == 0) fitting *= 2;
  const std::string row = "0 for the whole row";
  return fitting == 1 ? row : "a divisor such as " + std::to_string(fitting) + ", or " + row;
}

}  // namespace

void check_type(const std::string& type, const std::string& where) {
  require<UsageError>(type.empty() || number_format(type) || find_gguf_mixture(type) != nullptr,
                      where, "unknown type '", type, "'; known: FP8, MXFP4, NF4, ",
                      gguf_mixture_names());
}

void check_grid(const GridConfig& config, const std::string& where) {
  check_type(config.type, where + ".type");
  if (config.type.empty()) return;
  const GridConfig defaults;
  const auto refuse = [&](const char* key, const auto& value, const auto& usual) {
    require<UsageError>(value == usual, where, key, ": ", value,
                        " does nothing here; type: ", config.type,
                        " decides the grid: leave one of the two out");
  };
  refuse("bits", config.bits, defaults.bits);
  refuse("group_size", config.group_size, defaults.group_size);
  refuse("symmetric", config.symmetric, defaults.symmetric);
  refuse("scale_type", config.scale_type, defaults.scale_type);
}

QuantScheme fitted(const QuantScheme& scheme, std::int64_t columns) {
  const io::GgmlTypeInfo* wanted = io::find_ggml_type(to_string(scheme.block));
  if (wanted == nullptr) return scheme;
  const io::GgmlType type = fallback_type(wanted->type, columns);
  return type == wanted->type ? scheme : attar::scheme_of(type);
}

QuantScheme grid_of(const GridConfig& config, std::int64_t columns) {
  if (config.type.empty()) return plain_scheme(config);
  if (const auto scheme = number_format(config.type)) return *scheme;
  return attar::scheme_of(fallback_type(find_gguf_mixture(config.type)->base, columns));
}

SchemeRules::SchemeRules(const SchemeConfig& config, std::string where)
    : base_(config), where_(std::move(where)) {
  require<UsageError>(base_.rules.is_array(), where_, "rules must be a list of mappings");
  check_grid(base_, where_);
  check_activations(base_, where_);
  for (std::size_t i = 0; i < base_.rules.size(); ++i) {
    const std::string place = where_ + ".rules[" + std::to_string(i) + "]";
    require<UsageError>(base_.rules[i].is_object() && base_.rules[i].contains("layers"), place,
                        "a rule is a mapping with the key 'layers'");
    ExceptionFields defaults;
    static_cast<SchemeConfig&>(defaults) = base_;
    require<UsageError>(!sets_grid(base_.rules[i]) || !base_.rules[i].contains("type"), place,
                        "type decides the grid, so bits, group_size and symmetric beside it do "
                        "nothing; leave one out");
    if (sets_grid(base_.rules[i])) defaults.type.clear();
    const auto read = read_fields<ExceptionFields>(base_.rules[i], place, defaults);
    check_type(read.type, place + ".type");
    check_activations(read, place);
    exceptions_.push_back({read.layers, read});
  }
}

QuantScheme SchemeRules::scheme_of(const SchemeConfig& scheme, std::int64_t block, Role role,
                                   const ModelConfig* config) const {
  const auto with_activations = [&](QuantScheme grid) {
    grid.activation_bits = scheme.activations;
    return grid;
  };
  if (scheme.type.empty()) return with_activations(plain_scheme(scheme));
  require<UsageError>(config != nullptr, where_,
                      "type is for passes that round on its grids; give bits and group_size, or "
                      "let a quantize.gptq with this type follow");
  if (const auto format = number_format(scheme.type)) return with_activations(*format);
  const io::GgmlType type = mixture_type(*find_gguf_mixture(scheme.type), *config, block, role);
  return attar::scheme_of(fallback_type(type, shape_of(*config, role).in));
}

SchemeDecision SchemeRules::decide(std::int64_t block, Role role, const ModelConfig* config) const {
  if (!base_.chosen.empty()) {
    const auto found = base_.chosen.find(layer_name(block, role));
    if (found == base_.chosen.end()) return {std::nullopt, "not chosen"};
    return {found->second, "chosen"};
  }
  if (const std::string* skipped = first_match(base_.skip, block, role)) {
    return {std::nullopt, "skip '" + *skipped + "'"};
  }
  const SchemeConfig* deciding = nullptr;
  SchemeDecision decision{std::nullopt, "no pattern of layers"};
  if (const std::string* chosen = first_match(base_.layers, block, role)) {
    deciding = &base_;
    decision.rule = "layers '" + *chosen + "'";
  }
  for (std::size_t i = 0; i < exceptions_.size(); ++i) {
    if (const std::string* chosen = first_match(exceptions_[i].layers, block, role)) {
      deciding = &exceptions_[i].scheme;
      decision.rule = "rules[" + std::to_string(i) + "] '" + *chosen + "'";
    }
  }
  if (deciding != nullptr) decision.scheme = scheme_of(*deciding, block, role, config);
  return decision;
}

// One input is rounded once: in one way for all the layers that read it, or for none.
void SchemeRules::check_inputs(std::span<const PlannedLayer> block) const {
  const auto rounds = [](const PlannedLayer& layer) {
    return layer.scheme ? layer.scheme->token_grid() : std::nullopt;
  };
  for (const PlannedLayer& a : block) {
    for (const PlannedLayer& b : block) {
      require<DoesNotFit>(site_of(a.role) != site_of(b.role) || rounds(a) == rounds(b), where_,
                          "layers '", layer_name(a.block, a.role), "' and '",
                          layer_name(b.block, b.role),
                          "' read one input, which activations: 8 rounds for both or for none, to "
                          "FP8 where both are FP8 (decided by ",
                          a.rule, " and ", b.rule, ")");
    }
  }
}

std::vector<PlannedLayer> SchemeRules::plan(
    const ModelConfig& config, std::string_view method,
    const std::function<bool(std::int64_t, Role)>& rounds) const {
  require_matches(base_.layers, config, where_ + ".layers");
  require_matches(base_.skip, config, where_ + ".skip");
  for (std::size_t i = 0; i < exceptions_.size(); ++i) {
    require_matches(exceptions_[i].layers, config, where_ + ".rules[" + std::to_string(i) + "]");
  }
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    // Whether a block has attention may be a sketch: as if it had.
    const BlockWidths own = config.widths_of(block);
    const ModelConfig one =
        config.with(own.attends() ? own : BlockWidths{own.ffn, config.heads, config.kv_heads});
    for (const Role role : kRoles) {
      const SchemeDecision decision = decide(block, role, &one);
      PlannedLayer layer{block,         role,        decision.scheme.has_value(),
                         decision.rule, "unchanged", decision.scheme};
      if (decision.scheme && (!rounds || rounds(block, role))) {
        const std::int64_t group = decision.scheme->group_size, in = shape_of(one, role).in;
        require<DoesNotFit>(!decision.scheme->floating() || group == 0 || in % group == 0, where_,
                            describe(*decision.scheme), " needs input features in multiples of ",
                            group, ", got ", in, " (layer '", layer_name(block, role),
                            "', decided by ", decision.rule,
                            "); type: FP8 takes any rows, skip leaves the layer as it is");
        require<DoesNotFit>(group == 0 || in % group == 0, where_,
                            "group_size must divide input features, got group_size=", group,
                            ", input features=", in, " (layer '", layer_name(block, role),
                            "', decided by ", decision.rule, "); choose ",
                            fitting_groups(group, in));
        layer.keeps_zeros = decision.scheme->holds_zero();
        layer.action = std::string(method) + " " + describe(*decision.scheme);
      }
      planned.push_back(std::move(layer));
    }
    check_inputs(std::span(planned).last(kRoles.size()));
  }
  return planned;
}

}  // namespace attar
