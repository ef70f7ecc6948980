#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"
#include "compress/io/gguf_file.h"

namespace attar {
namespace {

// The double that a person meant by a float32: 9.99999975e-06 is 1e-05.
double as_written(float value) {
  std::array<char, 32> text;
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  double written = value;
  if (error == std::errc()) std::from_chars(text.data(), end, written);
  return written;
}

// Metadata below the prefix of an architecture.
class Metadata {
 public:
  Metadata(const io::GgufFile& file, std::string_view prefix) : file_(file), prefix_(prefix) {}

  std::string key(std::string_view name) const { return prefix_ + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  std::int64_t integer(std::string_view name) const { return file_.u32(key(name)); }
  std::int64_t integer_or(std::string_view name, std::int64_t fallback) const {
    return has(name) ? integer(name) : fallback;
  }
  double number(std::string_view name) const { return as_written(file_.f32(key(name))); }
  double number_or(std::string_view name, double fallback) const {
    return has(name) ? number(name) : fallback;
  }

  // [layers]
  std::vector<std::uint32_t> by_layer(std::string_view name, std::int64_t layers) const {
    return file_.u32_per_layer(key(name), static_cast<std::size_t>(layers));
  }
  // A number that must be the same for every layer.
  std::int64_t same_for_all(std::string_view name, std::int64_t layers) const {
    const std::vector<std::uint32_t> values = by_layer(name, layers);
    require(std::equal(values.begin() + 1, values.end(), values.begin()), file_.path().string(),
            "key '", key(name), "' differs between layers, which is not supported");
    return values.front();
  }

 private:
  const io::GgufFile& file_;
  std::string prefix_;
};

Rope rope_from(const io::GgufFile& file, const Metadata& meta, std::int64_t head_dim) {
  const std::string where = file.path().string();
  Rope rope;
  rope.theta = meta.number_or("rope.freq_base", 10000.0);
  const std::int64_t turned = meta.integer_or("rope.dimension_count", head_dim);
  require(turned == head_dim, where, "key '", meta.key("rope.dimension_count"),
          "' must be the head size ", head_dim, " (partial rotary is not supported), got ", turned);
  const std::string key = meta.key("rope.scaling.type");
  const std::string_view type =
      file.string_or(key, meta.has("rope.scale_linear") ? "linear" : "none");
  require(type == "none" || type == "linear", where, "key '", key, "' is '", type,
          "'; supported: none, linear (llama3 is stored as rope_freqs.weight)");
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor =
        meta.number(meta.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear");
  }
  if (const io::GgufTensor* factors = file.find_tensor("rope_freqs.weight")) {
    const std::vector<std::int64_t> expected = {head_dim / 2};
    require(factors->type == io::GgmlType::f32 && factors->ne == expected, where,
            "rope_freqs.weight must be F32 with ", head_dim / 2, " values");
    rope.stored_factors.resize(static_cast<std::size_t>(head_dim / 2));
    std::copy_n(factors->bytes.data(), factors->bytes.size(),
                reinterpret_cast<std::byte*>(rope.stored_factors.data()));
    for (const float factor : rope.stored_factors) {
      require(std::isfinite(factor) && factor > 0, where,
              "rope_freqs.weight must hold positive numbers, got ", factor);
    }
  }
  return rope;
}

std::optional<std::int64_t> token_id(const io::GgufFile& file, std::string_view key) {
  return file.has(key) ? std::optional<std::int64_t>(file.u32(key)) : std::nullopt;
}

std::int64_t vocabulary_of(const io::GgufFile& file, const Metadata& meta, const Family& family) {
  if (meta.has("vocab_size")) return meta.integer("vocab_size");
  const io::GgufTensor& embedding = file.tensor(std::string(family.gguf.embedding) + ".weight");
  require(embedding.ne.size() == 2, file.path().string(), embedding.name, " must have rank 2");
  return embedding.ne[1];
}

// Of a file that states them block by block.
std::vector<BlockWidths> uneven_widths(const Metadata& meta, std::int64_t layers,
                                       std::string_view where) {
  const auto ffn = meta.by_layer("feed_forward_length", layers);
  const auto heads = meta.by_layer("attention.head_count", layers);
  const auto kv_heads = meta.by_layer("attention.head_count_kv", layers);
  std::vector<BlockWidths> widths;
  for (std::size_t i = 0; i < ffn.size(); ++i) {
    widths.push_back({ffn[i], heads[i], kv_heads[i]});
    require(ffn[i] > 0 && widths.back().heads_divide(), where, "block ", i, " has ", heads[i],
            " heads, ", kv_heads[i], " key-value heads and ", ffn[i],
            " neurons; blocks without an MLP, or with a linear map for attention, are not "
            "supported");
  }
  return widths;
}

}  // namespace

ModelConfig config_from_gguf(const io::GgufFile& file) {
  const std::string where = file.path().string();
  const std::string_view architecture = file.string("general.architecture");
  const Family& family = family_of_gguf_architecture(architecture, where);
  const Metadata meta(file, architecture);
  ModelConfig config;
  config.family = family.name;
  config.layers = meta.integer("block_count");
  require(config.layers > 0 && config.layers <= 10'000, where, "key '", meta.key("block_count"),
          "' must be in [1, 10000], got ", config.layers);
  config.hidden = meta.integer("embedding_length");
  if (gguf_architecture_named(architecture, where).uneven) {
    config.set_widths(uneven_widths(meta, config.layers, where));
  } else {
    config.ffn = meta.same_for_all("feed_forward_length", config.layers);
    config.heads = meta.same_for_all("attention.head_count", config.layers);
    config.kv_heads = meta.has("attention.head_count_kv")
                          ? meta.same_for_all("attention.head_count_kv", config.layers)
                          : config.heads;
  }
  require(config.heads > 0, where, "key '", meta.key("attention.head_count"),
          "' must be positive, got 0");
  config.head_dim = meta.integer_or("attention.key_length", config.hidden / config.heads);
  const std::int64_t value_width = meta.integer_or("attention.value_length", config.head_dim);
  require(value_width == config.head_dim, where, "keys and values of a head must be of one size, ",
          "got ", config.head_dim, " and ", value_width);
  config.vocabulary = vocabulary_of(file, meta, family);
  config.max_positions = meta.integer("context_length");
  config.norm_eps = meta.number("attention.layer_norm_rms_epsilon");
  config.rope = rope_from(file, meta, config.head_dim);
  config.head_norms = family.head_norms;
  config.tied_head = file.find_tensor(std::string(family.gguf.head) + ".weight") == nullptr;
  config.bos = token_id(file, "tokenizer.ggml.bos_token_id");
  config.eos = token_id(file, "tokenizer.ggml.eos_token_id");
  require(meta.integer_or("expert_count", 0) == 0, where, "mixtures of experts are not supported");
  const std::int64_t window = meta.integer_or("attention.sliding_window", 0);
  require(window == 0 || window >= config.max_positions, where, "a sliding window of ", window,
          " is not supported");
  check(config, where);
  return config;
}

std::vector<float> llama3_factors(const ModelConfig& config) {
  const Rope& rope = config.rope;
  if (rope.scaling != RopeScaling::kLlama3) return {};
  std::vector<float> factors;
  const double positions = static_cast<double>(rope.original_positions);
  for (std::int64_t j = 0; j < config.head_dim / 2; ++j) {
    const double exponent = 2.0 * static_cast<double>(j) / static_cast<double>(config.head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(rope.theta, exponent);
    const double low = rope.low_frequency_factor, high = rope.high_frequency_factor;
    double factor = 1;
    if (wavelength > positions / low) {
      factor = rope.factor;
    } else if (wavelength >= positions / high) {
      const double t = (positions / wavelength - low) / (high - low);
      factor = rope.factor / ((1 - t) + t * rope.factor);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

Rope recognize_llama3(const ModelConfig& config) {
  const std::vector<float>& stored = config.rope.stored_factors;
  if (stored.empty()) return config.rope;
  ModelConfig guess = config;
  guess.rope.stored_factors.clear();
  if (std::all_of(stored.begin(), stored.end(), [](float f) { return f == 1.0F; })) {
    return guess.rope;
  }
  guess.rope.scaling = RopeScaling::kLlama3;
  guess.rope.factor = as_written(*std::max_element(stored.begin(), stored.end()));
  guess.rope.low_frequency_factor = 1.0;
  guess.rope.high_frequency_factor = 4.0;
  for (std::int64_t positions = 16; positions <= (1 << 20); positions *= 2) {
    guess.rope.original_positions = positions;
    const std::vector<float> made = llama3_factors(guess);
    const bool equal = std::equal(made.begin(), made.end(), stored.begin(),
                                  [](float a, float b) { return std::abs(a - b) <= 1e-5F * b; });
    if (equal) return guess.rope;
  }
  return config.rope;
}

}  // namespace attar
