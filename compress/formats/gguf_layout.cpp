#include "compress/formats/gguf_layout.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <set>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"
#include "compress/formats/gguf_mixture.h"

namespace attar {
namespace {

using io::GgmlType;

bool is_plain(GgmlType type) { return !is_block_type(type); }

std::string_view name_of(GgmlType type) { return io::ggml_type_info(type).name; }

double bits_of(GgmlType type) {
  const io::GgmlTypeInfo& info = io::ggml_type_info(type);
  return 8.0 * info.bytes / info.elements;
}

std::string two_decimals(double value) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%.2f", value);
  return text.data();
}

// What an option names; neither for "auto".
struct Named {
  std::optional<GgmlType> plain;
  const GgufMixture* mixture = nullptr;
};

Named named_by(std::string_view option) {
  if (option.empty() || option == "auto" || option == "AUTO") return {};
  if (const GgufMixture* mixture = find_gguf_mixture(option)) return {std::nullopt, mixture};
  const io::GgmlTypeInfo* info = io::find_ggml_type(option);
  const bool known =
      info != nullptr &&
      (info->type == GgmlType::f32 || info->type == GgmlType::f16 || info->type == GgmlType::bf16);
  require<UsageError>(known, "export gguf", "type '", option,
                      "' is not supported; supported: auto, F32, F16, BF16, ",
                      gguf_mixture_names());
  return {info->type, nullptr};
}

class Builder {
 public:
  Builder(const ModelConfig& config, const ExportOptions& options)
      : config_(config),
        family_(family_named(config_.family)),
        options_(options),
        named_(named_by(options.type)) {
    layout_.architecture = gguf_architecture_of(family_, config.widths_open || !config.uniform());
  }

  GgufLayout build(const ModelStates& states) {
    check_model();
    const TensorNames& names = family_.gguf;
    layout_.units.emplace_back();
    outer(std::string(names.embedding), states.embedding, false);
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      layout_.units.emplace_back();
      const ModelConfig config = config_.of_block(i);
      for (const Norm norm : norms_of(config)) {
        vector(fill(names.of(norm), i) + ".weight", width_of(config_, norm));
      }
      const std::vector<WeightState> roles = states.block(i);
      for (const Role role : roles_of(config)) linear(roles[index_of(role)], i, role);
    }
    layout_.units.emplace_back();
    vector(std::string(names.final_norm) + ".weight", config_.hidden);
    if (states.head) outer(std::string(names.head), *states.head, true);
    rope_factors();
    choose_file_type();
    note_fallbacks();
    note_rounded_again();
    note_uneven();
    return std::move(layout_);
  }

 private:
  void check_model() {
    require<DoesNotFit>(config_.activation == Activation::kSilu, "export gguf", "architecture ",
                        layout_.architecture.name, " has silu gates only, the model has ",
                        to_string(config_.activation), "; export as huggingface");
    require<DoesNotFit>(
        !config_.head_norms || layout_.architecture.holds_head_norms, "export gguf",
        "the blocks differ in width, which llama.cpp reads as ", layout_.architecture.name,
        ", and that has no norms of queries and keys; no file holds such a model: give "
        "prune.width uniform: true and prune.depth unit: block");
  }

  void vector(std::string name, std::int64_t width) {
    GgufPart part;
    part.name = std::move(name);
    part.ne = {width};
    layout_.units.back().push_back(std::move(part));
  }

  void linear(const WeightState& state, std::int64_t block, Role role) {
    const std::string name = fill(family_.gguf.of(role), block);
    std::optional<GgmlType> type = named_.plain;
    if (named_.mixture != nullptr) type = mixture_type(*named_.mixture, config_, block, role);
    GgufPart part = part_for(name + ".weight", state, type);
    linear_bytes_ += static_cast<double>(part.bytes());
    linear_weights_ += static_cast<double>(state.shape.in * state.shape.out);
    layout_.units.back().push_back(std::move(part));
    require<DoesNotFit>(!state.bias || layout_.architecture.holds_biases, "export gguf", "layer ",
                        state.layer, " has a bias, and llama.cpp's ", layout_.architecture.name,
                        " has none; export as huggingface or compressed-tensors");
    if (state.bias) vector(name + ".bias", state.shape.out);
  }

  // Embedding or head.
  void outer(const std::string& name, const WeightState& state, bool head) {
    const auto add = [&](std::optional<GgmlType> type) {
      layout_.units.back().push_back(part_for(name + ".weight", state, type));
    };
    if (!options_.embedding_type.empty()) {
      const Named named = named_by(options_.embedding_type);
      return add(named.mixture != nullptr ? named.mixture->base : named.plain);
    }
    if (named_.plain) return add(named_.plain);
    if (state.scheme) {
      if (const auto kept = smallest_fit(*state.scheme, state.shape.in)) return add(kept);
    }
    if (named_.mixture == nullptr || state.shape.in % 32 != 0) return add(GgmlType::f16);
    add(mixture_outer_type(*named_.mixture, config_, head));
  }

  GgufPart part_for(std::string name, const WeightState& state, std::optional<GgmlType> type) {
    require<DoesNotFit>(
        !state.rounds_input || (state.scheme && !state.by_pass), "export gguf", "layer ",
        state.layer, " rounds what it reads, which a GGUF file cannot say; ",
        state.scheme ? "export as compressed-tensors, or" : "leave the term beside it out, or",
        " set activations: 0");
    GgufPart part;
    part.name = std::move(name);
    part.layer = state.layer;
    part.ne = {state.shape.in, state.shape.out};
    part.by_pass = state.by_pass && state.scheme.has_value();
    part.type = type ? fall_back(*type, state) : smallest_type(state);
    if (is_plain(part.type)) return part;
    require<DoesNotFit>(state.shape.in % 32 == 0, "export gguf", "layer ", state.layer, " has ",
                        state.shape.in, " input features, and ", name_of(part.type),
                        " needs a multiple of 32; choose F16 or prune to a multiple of 32");
    if (!state.scheme) return part;
    const std::optional<Fit> kept = fit(part.type, *state.scheme, state.shape.in);
    part.keep_codes = kept.has_value();
    part.fit = kept.value_or(Fit::kExact);
    if (!kept) {
      refuse_requantizing(part, state);
      ++rounded_again_;
    }
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

  GgmlType fall_back(GgmlType type, const WeightState& state) {
    const GgmlType fallback = is_plain(type) ? type : fallback_type(type, state.shape.in);
    if (fallback != type) {
      Fallen& fallen = fallen_[{type, fallback}];
      ++fallen.layers;
      fallen.columns.insert(state.shape.in);
    }
    return fallback;
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
    if (scheme.floating()) {
      return "attar's GGUF files hold no " + std::string(to_string(scheme.block)) + "; export as " +
             (scheme.block == BlockGrid::kNf4 ? "huggingface, which holds its values"
                                              : "compressed-tensors") +
             ", or quantize with a type of GGUF (IQ4_NL)";
    }
    const std::int64_t group = scheme.group_size == 0 ? state.shape.in : scheme.group_size;
    if (group % 32 != 0) {
      return "its blocks are 32 columns and groups of " + std::to_string(group) +
             " are no multiple of that; use a group size that is";
    }
    if (scheme.block != BlockGrid::kNone) {
      return "a grid of " + std::string(to_string(scheme.block)) + " fits that type alone";
    }
    if (scheme.scale_type != at::kHalf) return "its scales are float16; use scale type float16";
    if (scheme.zero_point == ZeroPoint::kMinimum) {
      return "only Q4_1 and Q5_1 have minima, of at most 4 and 5 bits; use a symmetric grid";
    }
    return "Q4_0 holds symmetric codes of at most 4 bits and Q5_0 of 5, Q4_1 any of at most 4 and "
           "Q5_1 of 5, Q8_0 symmetric ones of at most 8 and others of at most 7; change bits or "
           "zero point";
  }

  void rope_factors() {
    layout_.rope_factors =
        config_.rope.stored_factors.empty() ? llama3_factors(config_) : config_.rope.stored_factors;
    if (layout_.rope_factors.empty()) return;
    require<DoesNotFit>(layout_.architecture.holds_rope_factors, "export gguf", "architecture ",
                        layout_.architecture.name,
                        " cannot hold rotary factors; export as "
                        "huggingface");
    vector("rope_freqs.weight", config_.head_dim / 2);
  }

  void choose_file_type() {
    if (named_.mixture != nullptr) {
      layout_.file_type = named_.mixture->file_type;
      return;
    }
    std::map<GgmlType, int> counts;
    for (std::size_t u = 1; u + 1 < layout_.units.size(); ++u) {
      for (const GgufPart& part : layout_.units[u]) counts[part.type] += !part.layer.empty();
    }
    const GgmlType most =
        std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
          return a.second < b.second;
        })->first;
    layout_.file_type = most == GgmlType::f32    ? 0
                        : most == GgmlType::f16  ? 1
                        : most == GgmlType::bf16 ? 32
                                                 : gguf_mixture_of(most).file_type;
  }

  // Tensors whose rows no block of 256 divides, and what that costs.
  void note_fallbacks() {
    if (named_.mixture == nullptr) return;
    bool dearer = false;
    for (const auto& [types, fallen] : fallen_) {
      const auto [wanted, got] = types;
      std::string columns;
      for (const std::int64_t count : fallen.columns) {
        columns += (columns.empty() ? "" : ", ") + std::to_string(count);
      }
      layout_.notes.push_back(
          std::to_string(fallen.layers) + " tensors have rows of " + columns +
          " columns, which blocks of 256 do not divide: " + std::string(name_of(got)) + " (" +
          two_decimals(bits_of(got)) + " bits) in place of " + std::string(name_of(wanted)) + " (" +
          two_decimals(bits_of(wanted)) + ")");
      dearer = dearer || bits_of(got) > bits_of(wanted);
    }
    const double bits = 8 * linear_bytes_ / linear_weights_;
    layout_.notes.push_back(
        std::string(named_.mixture->name) + " as written: " + two_decimals(bits) +
        " bits a weight of the linear layers" +
        (dearer && bits > 4.53 ? "; quantize.gptq with type: IQ4_NL keeps 4.50 on any rows of "
                                 "32, and prune.width can make widths multiples of 256"
                               : ""));
  }

  void note_rounded_again() {
    if (rounded_again_ == 0) return;
    layout_.notes.push_back("codes of " + std::to_string(rounded_again_) +
                            " tensors do not fit the types asked for and are rounded again");
  }

  void note_uneven() {
    if (!layout_.architecture.uneven) return;
    layout_.notes.push_back("the blocks differ in width, so the file is of the architecture " +
                            std::string(layout_.architecture.name) +
                            ", which llama.cpp and attar read and transformers does not");
  }

  struct Fallen {
    std::int64_t layers = 0;
    std::set<std::int64_t> columns;
  };

  const ModelConfig& config_;
  const Family& family_;
  const ExportOptions& options_;
  Named named_;
  std::map<std::pair<GgmlType, GgmlType>, Fallen> fallen_;
  std::int64_t rounded_again_ = 0;
  double linear_bytes_ = 0, linear_weights_ = 0;
  GgufLayout layout_;
};

}  // namespace

std::uint64_t GgufPart::bytes() const { return io::ggml_tensor_bytes(type, ne).value(); }

GgufLayout gguf_layout(const ModelStates& states, const ExportOptions& options) {
  return Builder(states.config, options).build(states);
}

}  // namespace attar
