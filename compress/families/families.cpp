#include <algorithm>
#include <string>

#include "compress/core/errors.h"
#include "compress/families/family.h"

namespace attar {
namespace {

constexpr TensorNames kLlamaNames = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .head = "lm_head",
    .norms = {"model.layers.{}.input_layernorm", "model.layers.{}.post_attention_layernorm",
              "model.layers.{}.self_attn.q_norm", "model.layers.{}.self_attn.k_norm"},
    .linears = {"model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.k_proj",
                "model.layers.{}.self_attn.v_proj", "model.layers.{}.self_attn.o_proj",
                "model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj",
                "model.layers.{}.mlp.down_proj"},
};

constexpr TensorNames kGgufNames = {
    .embedding = "token_embd",
    .final_norm = "output_norm",
    .head = "output",
    .norms = {"blk.{}.attn_norm", "blk.{}.ffn_norm", "blk.{}.attn_q_norm", "blk.{}.attn_k_norm"},
    .linears = {"blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v", "blk.{}.attn_output",
                "blk.{}.ffn_gate", "blk.{}.ffn_up", "blk.{}.ffn_down"},
};

constexpr GgufArchitecture kLlamaGguf = {.name = "llama",
                                         .interleaves_query_and_key = true,
                                         .holds_rope_factors = true,
                                         .holds_biases = true};
constexpr GgufArchitecture kUnevenGguf = {.name = "deci",
                                          .interleaves_query_and_key = true,
                                          .holds_rope_factors = true,
                                          .holds_biases = true,
                                          .uneven = true};

// Of families that share a GGUF architecture the first is the one that such a file is read as.
constexpr std::array<Family, 4> kFamilies = {{
    {
        .name = "llama",
        .architecture = "LlamaForCausalLM",
        .gguf_architecture = kLlamaGguf,
        .huggingface = kLlamaNames,
        .gguf = kGgufNames,
        .query_key_value_bias = {.key = "attention_bias"},
        .output_bias = {.key = "attention_bias"},
        .mlp_bias = {.key = "mlp_bias"},
    },
    {
        .name = "mistral",
        .architecture = "MistralForCausalLM",
        .gguf_architecture = kLlamaGguf,
        .huggingface = kLlamaNames,
        .gguf = kGgufNames,
        .window_key = "sliding_window",
        .default_window = 4096,
        .default_max_positions = 131072,
        .default_kv_heads = 8,
    },
    {
        .name = "qwen2",
        .architecture = "Qwen2ForCausalLM",
        .gguf_architecture = {.name = "qwen2", .holds_biases = true},
        .huggingface = kLlamaNames,
        .gguf = kGgufNames,
        .query_key_value_bias = {.always = true},
        .window_key = "sliding_window",
        .window_switch = "use_sliding_window",
        .default_window = 4096,
        .default_max_positions = 32768,
        .default_kv_heads = 32,
    },
    {
        .name = "qwen3",
        .architecture = "Qwen3ForCausalLM",
        .gguf_architecture = {.name = "qwen3", .holds_head_norms = true},
        .huggingface = kLlamaNames,
        .gguf = kGgufNames,
        .head_norms = true,
        .query_key_value_bias = {.key = "attention_bias"},
        .output_bias = {.key = "attention_bias"},
        .window_key = "sliding_window",
        .window_switch = "use_sliding_window",
        .default_window = 4096,
        .default_max_positions = 32768,
        .default_kv_heads = 32,
        .default_head_dim = 128,
    },
}};

template <class Name>
std::string known(Name name) {
  std::string list;
  for (const Family& family : kFamilies) {
    const std::string entry(name(family));
    if (list.find(entry) != std::string::npos) continue;
    list += (list.empty() ? "" : ", ") + entry;
  }
  return list;
}

template <class Name>
const Family& find(std::string_view value, std::string_view where, std::string_view what,
                   Name name) {
  const auto found = std::find_if(kFamilies.begin(), kFamilies.end(),
                                  [&](const Family& family) { return name(family) == value; });
  require(found != kFamilies.end(), where, what, " '", value,
          "' is not supported; supported: ", known(name));
  return *found;
}

}  // namespace

const BiasRule& Family::bias_rule(Role role) const {
  switch (role) {
    case Role::kQuery:
    case Role::kKey:
    case Role::kValue:
      return query_key_value_bias;
    case Role::kOutput:
      return output_bias;
    default:
      return mlp_bias;
  }
}

std::span<const Family> families() { return kFamilies; }

const Family& family_of_model_type(std::string_view model_type, std::string_view where) {
  return find(model_type, where, "model_type", [](const Family& f) { return f.name; });
}

const Family& family_of_gguf_architecture(std::string_view architecture, std::string_view where) {
  if (architecture == kUnevenGguf.name) return kFamilies.front();
  return find(architecture, where, "general.architecture",
              [](const Family& f) { return f.gguf_architecture.name; });
}

const GgufArchitecture& gguf_architecture_of(const Family& family, bool uneven) {
  return uneven ? kUnevenGguf : family.gguf_architecture;
}

const GgufArchitecture& gguf_architecture_named(std::string_view name, std::string_view where) {
  return gguf_architecture_of(family_of_gguf_architecture(name, where), name == kUnevenGguf.name);
}

const Family& family_named(std::string_view name) {
  return find(name, "families", "family", [](const Family& f) { return f.name; });
}

std::string fill(std::string_view name, std::int64_t block) {
  const std::size_t place = name.find("{}");
  if (place == std::string_view::npos) return std::string(name);
  return std::string(name.substr(0, place)) + std::to_string(block) +
         std::string(name.substr(place + 2));
}

bool is_ignored_buffer(std::string_view tensor) {
  constexpr std::array<std::string_view, 5> kBuffers = {".rotary_emb.inv_freq", ".attn.bias",
                                                        ".attn.masked_bias", ".attention.bias",
                                                        ".position_ids"};
  return std::any_of(kBuffers.begin(), kBuffers.end(),
                     [&](std::string_view buffer) { return tensor.ends_with(buffer); });
}

}  // namespace attar
