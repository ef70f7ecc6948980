#include "compress/core/config.h"

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/kernels/causal_attention/causal_attention.h"

namespace attar {

std::string_view to_string(Activation activation) {
  constexpr std::array<std::string_view, 4> kNames = {"silu", "gelu_tanh", "gelu", "relu"};
  return kNames[static_cast<std::size_t>(activation)];
}

std::string_view to_string(RopeScaling scaling) {
  constexpr std::array<std::string_view, 3> kNames = {"none", "linear", "llama3"};
  return kNames[static_cast<std::size_t>(scaling)];
}

std::string_view to_string(Role role) {
  constexpr std::array<std::string_view, 7> kNames = {"q", "k", "v", "o", "gate", "up", "down"};
  return kNames[index_of(role)];
}

std::string_view to_string(Site site) {
  constexpr std::array<std::string_view, 4> kNames = {"attention_input", "o_input", "mlp_input",
                                                      "down_input"};
  return kNames[index_of(site)];
}

BlockWidths ModelConfig::widths_of(std::int64_t block) const {
  return uniform() ? BlockWidths{ffn, heads, kv_heads}
                   : block_widths.at(static_cast<std::size_t>(block));
}

ModelConfig ModelConfig::with(const BlockWidths& widths) const {
  ModelConfig one = *this;
  one.block_widths.clear();
  one.ffn = widths.ffn;
  one.heads = widths.heads;
  one.kv_heads = widths.kv_heads;
  return one;
}

ModelConfig ModelConfig::of_block(std::int64_t block) const { return with(widths_of(block)); }

void ModelConfig::set_widths(std::vector<BlockWidths> widths) {
  ffn = heads = kv_heads = 0;
  bool equal = true;
  for (const BlockWidths& block : widths) {
    ffn = std::max(ffn, block.ffn);
    heads = std::max(heads, block.heads);
    kv_heads = std::max(kv_heads, block.kv_heads);
    equal = equal && block == widths.front();
  }
  block_widths = equal ? std::vector<BlockWidths>() : std::move(widths);
}

Site site_of(Role role) {
  switch (role) {
    case Role::kQuery:
    case Role::kKey:
    case Role::kValue:
      return Site::kAttentionInput;
    case Role::kOutput:
      return Site::kOutputInput;
    case Role::kGate:
    case Role::kUp:
      return Site::kMlpInput;
    case Role::kDown:
      return Site::kDownInput;
  }
  throw std::logic_error("site_of: unknown role");
}

LinearShape shape_of(const ModelConfig& c, Role role) {
  switch (role) {
    case Role::kQuery:
      return {c.q_width(), c.hidden};
    case Role::kKey:
    case Role::kValue:
      return {c.kv_width(), c.hidden};
    case Role::kOutput:
      return {c.hidden, c.q_width()};
    case Role::kGate:
    case Role::kUp:
      return {c.ffn, c.hidden};
    case Role::kDown:
      return {c.hidden, c.ffn};
  }
  throw std::logic_error("shape_of: unknown role");
}

LinearShape shape_of(const ModelConfig& config, std::int64_t block, Role role) {
  return config.uniform() ? shape_of(config, role) : shape_of(config.of_block(block), role);
}

std::string_view short_name(Role role) {
  constexpr std::array<std::string_view, 7> kNames = {
      "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  return kNames[index_of(role)];
}

std::string_view short_name(Norm norm) {
  constexpr std::array<std::string_view, 4> kNames = {"input_layernorm", "post_attention_layernorm",
                                                      "self_attn.q_norm", "self_attn.k_norm"};
  return kNames[index_of(norm)];
}

std::span<const Norm> norms_of(const ModelConfig& config) {
  if (!config.attends()) return std::span(kNorms).subspan(index_of(Norm::kMlp), 1);
  return std::span(kNorms).first(config.head_norms ? 4 : 2);
}

std::span<const Role> roles_of(const ModelConfig& config) {
  return std::span(kRoles).subspan(config.attends() ? 0 : index_of(Role::kGate));
}

std::int64_t width_of(const ModelConfig& config, Norm norm) {
  return norm == Norm::kAttention || norm == Norm::kMlp ? config.hidden : config.head_dim;
}

std::string layer_name(std::int64_t block, Role role) {
  return "model.layers." + std::to_string(block) + "." + std::string(short_name(role));
}

void check(const ModelConfig& c, std::string_view where) {
  const auto bounded = [&](std::int64_t value, std::int64_t limit, std::string_view key) {
    require(value > 0 && value <= limit, where, key, " must be in [1, ", limit, "], got ", value);
  };
  bounded(c.layers, 10'000, "number of layers");
  bounded(c.hidden, 1 << 20, "hidden size");
  bounded(c.ffn, 1 << 22, "intermediate size");
  bounded(c.heads, 1 << 14, "number of attention heads");
  bounded(c.kv_heads, 1 << 14, "number of key-value heads");
  bounded(c.head_dim, kernels::kMaxHeadDim, "head size");
  bounded(c.vocabulary, 1 << 24, "vocabulary size");
  bounded(c.max_positions, 1 << 26, "number of positions");
  require(c.head_dim % 2 == 0, where, "head size must be even for rotary positions, got ",
          c.head_dim);
  require(c.uniform() || static_cast<std::int64_t>(c.block_widths.size()) == c.layers, where,
          "widths of ", c.block_widths.size(), " blocks are given for ", c.layers);
  for (std::int64_t block = 0; block < (c.uniform() ? 1 : c.layers); ++block) {
    const BlockWidths one = c.widths_of(block);
    require(one.ffn > 0 && one.kv_heads >= 0 && one.heads_divide(), where,
            "key-value heads must divide attention heads, got ", one.kv_heads, " and ", one.heads,
            " and ", one.ffn, " neurons in block ", block);
  }
  require(c.norm_eps > 0 && c.norm_eps < 1, where, "norm epsilon must be in (0, 1), got ",
          c.norm_eps);
  const auto positive = [](double value) { return value > 0 && std::isfinite(value); };
  require(positive(c.rope.theta) && positive(c.rope.factor), where,
          "rope theta and factor must be positive numbers, got ", c.rope.theta, " and ",
          c.rope.factor);
}

}  // namespace attar
