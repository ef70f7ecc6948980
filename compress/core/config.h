// The shape of a model, whatever file it came from.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attar {

// Activation of a gated MLP: down(act(gate x) * (up x)).
enum class Activation { kSilu, kGeluTanh, kGelu, kRelu };
std::string_view to_string(Activation activation);

enum class RopeScaling { kNone, kLinear, kLlama3 };
std::string_view to_string(RopeScaling scaling);

// Rotary position embedding, rotate_half convention: dimension j turns with j + dimensions / 2.
struct Rope {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;                     // kLinear, kLlama3
  double low_frequency_factor = 1.0;       // kLlama3
  double high_frequency_factor = 4.0;      // kLlama3
  std::int64_t original_positions = 8192;  // kLlama3
  // A file that stores frequencies divides them by these instead (GGUF rope_freqs), [head_dim / 2].
  std::vector<float> stored_factors;
};

// What blocks of one model may differ in. A block without attention has no heads.
struct BlockWidths {
  std::int64_t ffn = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;

  bool attends() const { return heads > 0; }
  bool heads_divide() const {
    return kv_heads > 0 ? heads > 0 && heads % kv_heads == 0 : heads == 0;
  }
  bool operator==(const BlockWidths&) const = default;
};

struct ModelConfig {
  std::string family;  // a name of compress/families
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocabulary = 0;
  std::int64_t max_positions = 0;
  double norm_eps = 1e-5;
  Activation activation = Activation::kSilu;
  Rope rope;
  bool head_norms = false;  // queries and keys are normed, head by head, before they are rotated
  bool tied_head = false;
  std::optional<std::int64_t> bos, eos;
  // One entry a block when blocks differ; then ffn, heads and kv_heads are the largest of them.
  std::vector<BlockWidths> block_widths;
  // Of a plan: block_widths is a sketch of what will be shared out while running.
  bool widths_open = false;

  bool uniform() const { return block_widths.empty(); }
  BlockWidths widths_of(std::int64_t block) const;
  // Takes the widths of all blocks over; equal ones make a uniform model.
  void set_widths(std::vector<BlockWidths> widths);
  // The same model with the widths of one block for all: what code that works on a block reads.
  ModelConfig of_block(std::int64_t block) const;
  ModelConfig with(const BlockWidths& widths) const;
  // Whether a block of these widths has attention. A model has it in one block at least.
  bool attends() const { return heads > 0; }

  std::int64_t q_width() const { return heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
};

// The linear layers of a block, in the order in which data meets them.
enum class Role { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown };
inline constexpr std::array<Role, 7> kRoles = {
    Role::kQuery, Role::kKey, Role::kValue, Role::kOutput, Role::kGate, Role::kUp, Role::kDown};
inline constexpr std::size_t index_of(Role role) { return static_cast<std::size_t>(role); }
std::string_view to_string(Role role);  // "q", "k", "v", "o", "gate", "up", "down"

// The norms of a block: before attention, before the MLP, of queries and of keys (over a head; only
// in models with head_norms).
enum class Norm { kAttention, kMlp, kQuery, kKey };
inline constexpr std::array<Norm, 4> kNorms = {Norm::kAttention, Norm::kMlp, Norm::kQuery,
                                               Norm::kKey};
inline constexpr std::size_t index_of(Norm norm) { return static_cast<std::size_t>(norm); }
// Of a block of these widths; one without attention has the MLP's alone.
std::span<const Norm> norms_of(const ModelConfig& config);
std::int64_t width_of(const ModelConfig& config, Norm norm);  // how many values it holds

// Those of a block of these widths; one without attention has gate, up and down alone.
std::span<const Role> roles_of(const ModelConfig& config);

// Where activations are seen: the four distinct inputs of a block's linear layers.
enum class Site { kAttentionInput, kOutputInput, kMlpInput, kDownInput };
inline constexpr std::array<Site, 4> kSites = {Site::kAttentionInput, Site::kOutputInput,
                                               Site::kMlpInput, Site::kDownInput};
inline constexpr std::size_t index_of(Site site) { return static_cast<std::size_t>(site); }
std::string_view to_string(Site site);
Site site_of(Role role);

struct LinearShape {
  std::int64_t out = 0;
  std::int64_t in = 0;

  bool empty() const { return out == 0 || in == 0; }  // a layer that is not there
};
// Of a uniform model, or of `config.of_block(i)`.
LinearShape shape_of(const ModelConfig& config, Role role);
LinearShape shape_of(const ModelConfig& config, std::int64_t block, Role role);

// The name that rules and reports use: the Hugging Face module path of Llama-like models,
// "model.layers.3.mlp.down_proj". `short_name` is its tail inside the block, "mlp.down_proj".
std::string layer_name(std::int64_t block, Role role);
std::string_view short_name(Role role);
std::string_view short_name(Norm norm);  // "input_layernorm", ..., "self_attn.k_norm"

// Throws BadInput unless numbers are positive, heads divide (BlockWidths), and nothing overflows.
void check(const ModelConfig& config, std::string_view where);

}  // namespace attar
