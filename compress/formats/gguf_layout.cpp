#include "compress/formats/gguf_layout.h"

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"

namespace attar {
namespace {

using io::GgmlType;

constexpr std::array<GgmlType, 6> kTypes = {GgmlType::f32,  GgmlType::f16,  GgmlType::bf16,
                                            GgmlType::q8_0, GgmlType::q4_0, GgmlType::q4_1};

bool is_plain(GgmlType type) {
  return type == GgmlType::f32 || type == GgmlType::f16 || type == GgmlType::bf16;
}

std::string_view name_of(GgmlType type) { return io::ggml_type_info(type).name; }

// Empty for "auto".
std::optional<GgmlType> type_from(std::string_view option) {
  if (option.empty() || option == "auto" || option == "AUTO") return std::nullopt;
  const io::GgmlTypeInfo* info = io::find_ggml_type(option);
  const bool known =
      info != nullptr && std::find(kTypes.begin(), kTypes.end(), info->type) != kTypes.end();
  require<UsageError>(known, "export gguf", "type '", option,
                      "' is not supported; supported: auto, F32, F16, BF16, Q8_0, Q4_0, Q4_1");
  return info->type;
}

class Builder {
 public:
  Builder(const ModelConfig& config, const ExportOptions& options)
      : config_(config),
        family_(family_named(config_.family)),
        options_(options),
        type_(type_from(options.type)) {}

  GgufLayout build(const ModelStates& states) {
    check_model();
    const TensorNames& names = family_.gguf;
    layout_.units.emplace_back();
    outer(std::string(names.embedding), states.embedding);
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      layout_.units.emplace_back();
      vector(fill(names.attention_norm, i) + ".weight", config_.hidden);
      vector(fill(names.mlp_norm, i) + ".weight", config_.hidden);
      const std::vector<WeightState> roles = states.block(i);
      for (const Role role : kRoles) linear(roles[index_of(role)], i, role);
    }
    layout_.units.emplace_back();
    vector(std::string(names.final_norm) + ".weight", config_.hidden);
    if (states.head) outer(std::string(names.head), *states.head);
    rope_factors();
    choose_main_type();
    return std::move(layout_);
  }

 private:
  void check_model() {
    require<DoesNotFit>(config_.activation == Activation::kSilu, "export gguf", "architecture ",
                        family_.gguf_architecture, " has silu gates only, the model has ",
                        to_string(config_.activation), "; export as huggingface");
  }

  void vector(std::string name, std::int64_t width) {
    GgufPart part;
    part.name = std::move(name);
    part.ne = {width};
    layout_.units.back().push_back(std::move(part));
  }

  void linear(const WeightState& state, std::int64_t block, Role role) {
    const std::string name = fill(family_.gguf.of(role), block);
    layout_.units.back().push_back(part_for(name + ".weight", state, type_));
    if (state.bias) vector(name + ".bias", state.shape.out);
  }

  // Embedding or head.
  void outer(const std::string& name, const WeightState& state) {
    std::optional<GgmlType> type = type_from(options_.embedding_type);
    if (!options_.embedding_type.empty()) {
      layout_.units.back().push_back(part_for(name + ".weight", state, type));
      return;
    }
    const bool blocks = !type_ || !is_plain(*type_);
    std::optional<GgmlType> kept;
    if (blocks && state.scheme) kept = smallest_fit(*state.scheme, state.shape.in);
    if (kept) {
      type = kept;
    } else if (!type_ || state.shape.in % 32 != 0) {
      type = type_ && is_plain(*type_) ? *type_ : GgmlType::f16;
    } else {
      type = is_plain(*type_) ? *type_ : GgmlType::q8_0;
    }
    layout_.units.back().push_back(part_for(name + ".weight", state, type));
  }

  GgufPart part_for(std::string name, const WeightState& state, std::optional<GgmlType> type) {
    GgufPart part;
    part.name = std::move(name);
    part.layer = state.layer;
    part.ne = {state.shape.in, state.shape.out};
    part.by_pass = state.by_pass && state.scheme.has_value();
    part.type = type ? *type : smallest_type(state);
    if (is_plain(part.type)) return part;
    require<DoesNotFit>(state.shape.in % 32 == 0, "export gguf", "layer ", state.layer, " has ",
                        state.shape.in, " input features, and ", name_of(part.type),
                        " needs a multiple of 32; choose F16 or prune to a multiple of 32");
    if (!state.scheme) return part;
    const std::optional<Fit> kept = fit(part.type, *state.scheme, state.shape.in);
    part.keep_codes = kept.has_value();
    part.fit = kept.value_or(Fit::kExact);
    if (!kept) refuse_requantizing(part, state);
    return part;
  }

  // For "auto".
  GgmlType smallest_type(const WeightState& state) const {
    if (!state.scheme) return GgmlType::f16;
    const std::optional<GgmlType> smallest = smallest_fit(*state.scheme, state.shape.in);
    if (smallest) return *smallest;
    require<DoesNotFit>(!state.by_pass, "export gguf", "layer ", state.layer, " (",
                        describe(*state.scheme), ") does not fit: ", why_not(state),
                        "; or choose type: F16");
    return GgmlType::f16;
  }

  void refuse_requantizing(const GgufPart& part, const WeightState& state) const {
    require<DoesNotFit>(!state.by_pass || options_.requantize, "export gguf", "layer ", state.layer,
                        " (", describe(*state.scheme), ") does not fit ", name_of(part.type), ": ",
                        why_not(state),
                        "; or choose type: auto or F16, or requantize: true to "
                        "round again and lose what the quantizer gained");
  }

  static std::string why_not(const WeightState& state) {
    const QuantScheme& scheme = *state.scheme;
    const std::int64_t group = scheme.group_size == 0 ? state.shape.in : scheme.group_size;
    if (group % 32 != 0) {
      return "its blocks are 32 columns and groups of " + std::to_string(group) +
             " are no multiple of that; use a group size that is";
    }
    if (scheme.scale_type != at::kHalf) return "its scales are float16; use scale type float16";
    if (scheme.zero_point == ZeroPoint::kMinimum) {
      return "only Q4_1 has minima, of at most 4 bits; use a symmetric grid";
    }
    return "Q4_0 holds symmetric codes of at most 4 bits, Q4_1 any of at most 4, Q8_0 symmetric "
           "ones of at most 8 and others of at most 7; change bits or zero point";
  }

  void rope_factors() {
    layout_.rope_factors =
        config_.rope.stored_factors.empty() ? llama3_factors(config_) : config_.rope.stored_factors;
    if (layout_.rope_factors.empty()) return;
    require<DoesNotFit>(family_.gguf_holds_rope_factors, "export gguf", "architecture ",
                        family_.gguf_architecture,
                        " cannot hold rotary factors; export as "
                        "huggingface");
    vector("rope_freqs.weight", config_.head_dim / 2);
  }

  void choose_main_type() {
    std::map<GgmlType, int> counts;
    for (std::size_t u = 1; u + 1 < layout_.units.size(); ++u) {
      for (const GgufPart& part : layout_.units[u]) counts[part.type] += !part.layer.empty();
    }
    layout_.main_type =
        std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
          return a.second < b.second;
        })->first;
  }

  const ModelConfig& config_;
  const Family& family_;
  const ExportOptions& options_;
  std::optional<GgmlType> type_;
  GgufLayout layout_;
};

}  // namespace

std::uint64_t GgufPart::bytes() const { return io::ggml_tensor_bytes(type, ne).value(); }

GgufLayout gguf_layout(const ModelStates& states, const ExportOptions& options) {
  return Builder(states.config, options).build(states);
}

}  // namespace attar
