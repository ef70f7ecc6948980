#include "compress/formats/huggingface_layout.h"

#include <set>

#include "compress/core/errors.h"
#include "compress/families/family.h"
#include "compress/formats/compressed_floats.h"
#include "compress/formats/tensor_view.h"

namespace attar {
namespace {

std::uint64_t bytes_of_plan(const io::TensorPlan& plan) {
  return io::tensor_bytes(plan.type, plan.shape).value();
}

class Builder {
 public:
  Builder(const ModelSource& source, const ModelConfig& config, const ExportOptions& options)
      : config_(config), family_(family_named(config_.family)), options_(options) {
    layout_.dense_type =
        options.type.empty() ? source_dense_type(source) : dense_type_from(options.type);
  }

  HuggingFaceLayout build(const ModelStates& states) {
    require<DoesNotFit>(config_.uniform() && !config_.widths_open, "export",
                        "the blocks differ in width, and transformers expects one width; export "
                        "as gguf, which llama.cpp reads, or give prune.width uniform: true and "
                        "prune.depth unit: block");
    const TensorNames& names = family_.huggingface;
    layout_.units.emplace_back();
    weight(std::string(names.embedding), states.embedding, false);
    embedding_codes_ = states.embedding.scheme && states.embedding.by_pass;
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      layout_.units.emplace_back();
      for (const Norm norm : norms_of(config_)) {
        plain(fill(names.of(norm), i) + ".weight", {width_of(config_, norm)}, "");
      }
      const std::vector<WeightState> roles = states.block(i);
      for (const Role role : kRoles) {
        const WeightState& state = roles[index_of(role)];
        const std::string module = fill(names.of(role), i);
        weight(module, state, true);
        if (has_bias(role, roles)) plain(module + ".bias", {state.shape.out}, "");
      }
    }
    layout_.units.emplace_back();
    plain(std::string(names.final_norm) + ".weight", {config_.hidden}, "");
    if (states.head) {
      weight(std::string(names.head), *states.head, true);
    } else if (compressed()) {
      layout_.dense_modules.emplace_back(names.head);
    }
    make_shards();
    say_what_is_dense();
    return std::move(layout_);
  }

 private:
  bool compressed() const { return options_.format == ExportFormat::kCompressedTensors; }

  // config.json has one switch for several layers: where one of them has a bias, all have.
  bool has_bias(Role role, const std::vector<WeightState>& roles) const {
    const BiasRule& rule = family_.bias_rule(role);
    if (rule.always || roles[index_of(role)].bias) return true;
    for (const Role other : kRoles) {
      if (!rule.key.empty() && family_.bias_rule(other).key == rule.key &&
          roles[index_of(other)].bias) {
        return true;
      }
    }
    return false;
  }

  void plain(std::string name, std::vector<std::int64_t> shape, std::string layer) {
    ExportedPart part;
    part.layer = std::move(layer);
    part.tensors.push_back(
        {std::move(name), element_type_of(layout_.dense_type), std::move(shape)});
    layout_.units.back().parts.push_back(std::move(part));
  }

  void weight(const std::string& module, const WeightState& state, bool linear) {
    if (compressed() && linear && state.scheme) {
      const auto misfit = compressed_tensors_misfit(*state.scheme, state.shape, options_.two_bits);
      if (!misfit) return packed(module, state);
      require<DoesNotFit>(!state.by_pass, "export compressed-tensors", "layer ", state.layer, " (",
                          describe(*state.scheme), ") does not fit: ", *misfit);
      ++regrided_;
    }
    require<DoesNotFit>(
        !state.rounds_input || (state.scheme && !state.by_pass),
        compressed() ? "export compressed-tensors" : "export huggingface", "layer ", state.layer,
        state.scheme ? " (" + describe(*state.scheme) + ")" : "",
        " rounds what it reads, which plain values cannot say; ",
        state.scheme ? "export as compressed-tensors, or" : "leave the term beside it out, or",
        " set activations: 0");
    if (compressed() && linear) layout_.dense_modules.push_back(module);
    plain(module + ".weight", {state.shape.out, state.shape.in}, state.layer);
  }

  void packed(const std::string& module, const WeightState& state) {
    const QuantScheme& scheme = *state.scheme;
    const auto [out, in] = state.shape;
    const std::int64_t groups = scheme.groups(in), bits = scheme.bits;
    ExportedPart part;
    part.layer = state.layer;
    part.scheme = scheme;
    if (scheme.floating()) {
      for (FloatPart& stored : float_parts(scheme, state.shape)) {
        part.tensors.push_back(
            {module + std::string(stored.name), stored.type, std::move(stored.shape)});
      }
      layout_.packed.emplace(module, scheme);
      layout_.units.back().parts.push_back(std::move(part));
      return;
    }
    if (scheme.activation_bits != 0) {
      part.tensors.push_back({module + ".weight", io::ElementType::i8, {out, in}});
      part.tensors.push_back(
          {module + ".weight_scale", element_type_of(scheme.scale_type), {out, groups}});
      layout_.packed.emplace(module, scheme);
      layout_.units.back().parts.push_back(std::move(part));
      return;
    }
    part.tensors.push_back(
        {module + ".weight_packed", io::ElementType::i32, {out, (in * bits + 31) / 32}});
    part.tensors.push_back(
        {module + ".weight_scale", element_type_of(stored_scale_type(scheme)), {out, groups}});
    part.tensors.push_back({module + ".weight_shape", io::ElementType::i64, {2}});
    if (scheme.zero_point == ZeroPoint::kInteger) {
      part.tensors.push_back(
          {module + ".weight_zero_point", io::ElementType::i32, {(out * bits + 31) / 32, groups}});
    }
    widened_ += stored_scale_type(scheme) != scheme.scale_type ? 1 : 0;
    layout_.packed.emplace(module, scheme);
    layout_.units.back().parts.push_back(std::move(part));
  }

  void make_shards() {
    std::uint64_t in_shard = 0;
    for (std::size_t i = 0; i < layout_.units.size(); ++i) {
      const std::uint64_t bytes = layout_.units[i].bytes();
      if (i == 0 || in_shard + bytes > options_.max_shard_bytes) {
        layout_.shards.push_back(i);
        in_shard = 0;
      }
      in_shard += bytes;
      layout_.tensor_bytes += bytes;
    }
  }

  void say_what_is_dense() {
    if (embedding_codes_) {
      layout_.notes.push_back(
          "the codes of the embedding (and of a head tied to it) are written as plain values: this "
          "format has none for them");
    }
    if (!compressed()) return;
    require<DoesNotFit>(!layout_.packed.empty(), "export compressed-tensors",
                        "no layer has codes that this format holds; quantize with 4 or 8 bits and "
                        "integer zeros first, or export as huggingface");
    if (widened_ > 0) {
      layout_.notes.push_back("scales of " + std::to_string(widened_) +
                              " asymmetric layers are stored as float32, 16 bits a group more: "
                              "transformers computes those weights in the type of the scale");
    }
    if (grids() > 1 && any_asymmetric(layout_.packed)) {
      layout_.notes.push_back(
          "several grids, some asymmetric: transformers 5.23 with compressed-tensors 0.20 cannot "
          "load this mixture; one grid for all layers, or symmetric ones, it can");
    }
    if (grids() > 1 && any_mxfp4(layout_.packed)) {
      layout_.notes.push_back(
          "MXFP4 among other grids: transformers 5.23 makes its weights bfloat16, so it runs this "
          "folder with dtype bfloat16 alone; MXFP4 for all layers it runs in any type");
    }
    if (regrided_ > 0) {
      layout_.notes.push_back(std::to_string(regrided_) +
                              " layers that no pass has changed keep a grid of the source that "
                              "compressed-tensors cannot hold; they are stored as plain values");
    }
  }

  std::size_t grids() const {
    std::set<std::string> names;
    for (const auto& [module, scheme] : layout_.packed) names.insert(describe(scheme));
    return names.size();
  }

  const ModelConfig& config_;
  const Family& family_;
  const ExportOptions& options_;
  HuggingFaceLayout layout_;
  int regrided_ = 0;
  bool embedding_codes_ = false;
  int widened_ = 0;
};

}  // namespace

std::uint64_t ExportedPart::bytes() const {
  std::uint64_t sum = 0;
  for (const io::TensorPlan& plan : tensors) sum += bytes_of_plan(plan);
  return sum;
}

std::uint64_t ExportedUnit::bytes() const {
  std::uint64_t sum = 0;
  for (const ExportedPart& part : parts) sum += part.bytes();
  return sum;
}

std::string HuggingFaceLayout::shard_name(std::size_t shard) const {
  if (shards.size() == 1) return "model.safetensors";
  const auto five = [](std::size_t number) {
    const std::string digits = std::to_string(number);
    return std::string(5 - std::min<std::size_t>(5, digits.size()), '0') + digits;
  };
  return "model-" + five(shard + 1) + "-of-" + five(shards.size()) + ".safetensors";
}

std::size_t HuggingFaceLayout::shard_end(std::size_t shard) const {
  return shard + 1 < shards.size() ? shards[shard + 1] : units.size();
}

HuggingFaceLayout huggingface_layout(const ModelSource& source, const ModelStates& states,
                                     const ExportOptions& options) {
  return Builder(source, states.config, options).build(states);
}

}  // namespace attar
