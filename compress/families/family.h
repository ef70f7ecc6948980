// What is special about a model family, as data: names of tensors, keys of configurations, layout
// of the GGUF form. A new family that computes what core computes is one more row in
// families.cpp; no code asks for a family by name.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "compress/core/config.h"

namespace attar {

// Names of tensors without ".weight" and ".bias". "{}" stands for the number of the block.
struct TensorNames {
  std::string_view embedding;
  std::string_view final_norm;
  std::string_view head;  // absent from the file when the head is tied to the embedding
  std::array<std::string_view, kNorms.size()> norms;    // by index_of(Norm)
  std::array<std::string_view, kRoles.size()> linears;  // by index_of(Role)

  std::string_view of(Norm norm) const { return norms[index_of(norm)]; }
  std::string_view of(Role role) const { return linears[index_of(role)]; }
};

// Whether a group of linear layers carries biases.
struct BiasRule {
  bool always = false;
  std::string_view key = {};  // boolean of config.json that decides otherwise; empty: never
};

// One of llama.cpp's architectures.
struct GgufArchitecture {
  std::string_view name;  // "llama", also the prefix of its metadata keys
  // Rows of q and k lie as an interleaved rotary embedding wants them: row 2r of a head is row r
  // of the Hugging Face form, row 2r + 1 is row r + head_dim / 2.
  bool interleaves_query_and_key = false;
  bool holds_rope_factors = false;  // llama.cpp reads rope_freqs.weight for it
  bool holds_biases = false;
  bool holds_head_norms = false;
  bool uneven = false;  // heads and neurons are stated block by block
};

struct Family {
  std::string_view name;          // "llama", also the model_type of config.json
  std::string_view architecture;  // "LlamaForCausalLM"
  GgufArchitecture gguf_architecture;
  TensorNames huggingface;
  TensorNames gguf;
  bool head_norms = false;  // ModelConfig::head_norms
  BiasRule query_key_value_bias = {};
  BiasRule output_bias = {};
  BiasRule mlp_bias = {};
  // Key of a sliding attention window, which attar does not compute: must be null, no smaller than
  // max_position_embeddings, or switched off by `window_switch`. An absent key means the default.
  std::string_view window_key = {};
  std::string_view window_switch = {};
  // What transformers assumes for keys that config.json leaves out.
  std::int64_t default_window = 0;
  std::int64_t default_max_positions = 2048;
  std::int64_t default_kv_heads = 0;  // 0: as many as attention heads
  std::int64_t default_head_dim = 0;  // 0: the hidden size over the heads
  double default_norm_eps = 1e-6;

  const BiasRule& bias_rule(Role role) const;
};

std::span<const Family> families();

// Throws BadInput naming `where`, the value and what is supported.
const Family& family_of_model_type(std::string_view model_type, std::string_view where);
const Family& family_of_gguf_architecture(std::string_view architecture, std::string_view where);
const Family& family_named(std::string_view name);

// What a GGUF file of the family is; `uneven`: of a model whose blocks differ in width, which is
// "deci" (Nemotron-NAS) for all of them and is read as the first family again.
const GgufArchitecture& gguf_architecture_of(const Family& family, bool uneven);
// Throws as family_of_gguf_architecture.
const GgufArchitecture& gguf_architecture_named(std::string_view name, std::string_view where);

// "model.layers.{}.mlp.up_proj", 3 -> "model.layers.3.mlp.up_proj".
std::string fill(std::string_view name, std::int64_t block);

// Stored buffers that hold no weights and are ignored wherever they appear: rotary_emb.inv_freq,
// attn.bias, attn.masked_bias, attention.bias, position_ids.
bool is_ignored_buffer(std::string_view tensor);

}  // namespace attar
