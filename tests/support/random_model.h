// A small random Llama in memory, for tests that need a model and no file.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "compress/core/model.h"
#include "compress/core/random.h"

namespace attar::testing {

// Standard normal values from a counter, float32.
inline at::Tensor normal(std::vector<std::int64_t> shape, std::string_view purpose,
                         double deviation = 1.0) {
  at::Tensor values = at::empty(shape, at::kFloat);
  const CounterRandom random(7, purpose);
  auto* out = values.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    out[i] = static_cast<float>(deviation * random.normal(static_cast<std::uint64_t>(i)));
  }
  return values;
}

// What some families have and others have not.
enum class Variety { kPlain, kBiased, kHeadNorms, kNoAttention };  // the last: in its middle block
inline std::string name_of(Variety variety) {
  constexpr std::array<const char*, 4> kNames = {"plain", "biased", "head_norms", "no_attention"};
  return kNames[static_cast<std::size_t>(variety)];
}
inline auto all_varieties() {
  return ::testing::Values(Variety::kPlain, Variety::kBiased, Variety::kHeadNorms,
                           Variety::kNoAttention);
}

inline ModelConfig small_config(Variety variety = Variety::kPlain) {
  ModelConfig config;
  config.family = "llama";
  config.layers = 3;
  config.hidden = 64;
  config.ffn = 160;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.vocabulary = 101;
  config.max_positions = 256;
  config.tied_head = true;
  config.head_norms = variety == Variety::kHeadNorms;
  if (variety == Variety::kNoAttention) config.set_widths({{160, 6, 2}, {160, 0, 0}, {160, 6, 2}});
  return config;
}

class RandomSource : public ModelSource {
 public:
  explicit RandomSource(ModelConfig config = small_config(), bool biases = false)
      : config_(std::move(config)), biases_(biases) {}

  const ModelConfig& config() const override { return config_; }
  Block read_block(std::int64_t index) const override {
    Block block;
    const std::string name = std::to_string(index);
    constexpr std::array<const char*, kNorms.size()> kNames = {".attention_norm", ".mlp_norm",
                                                               ".query_norm", ".key_norm"};
    const ModelConfig config = config_.of_block(index);
    for (const Norm norm : norms_of(config)) {
      block[norm] = 1 + normal({width_of(config, norm)}, name + kNames[index_of(norm)], 0.1);
    }
    for (const Role role : roles_of(config)) {
      const LinearShape shape = shape_of(config, role);
      const std::string layer = name + "." + std::string(to_string(role));
      block[role].weight = DenseWeight{
          normal({shape.out, shape.in}, layer, 1.0 / std::sqrt(static_cast<double>(shape.in)))};
      if (biases_) block[role].bias = normal({shape.out}, layer + ".bias", 0.1);
    }
    return block;
  }
  Weight read_embedding() const override {
    return DenseWeight{normal({config_.vocabulary, config_.hidden}, "embedding")};
  }
  at::Tensor read_final_norm() const override { return at::ones({config_.hidden}, at::kFloat); }
  Weight read_head() const override { return read_embedding(); }
  void done_with_block(std::int64_t) const override {}
  void done_with_outer() const override {}
  std::string path() const override { return "random"; }
  std::string format() const override { return "memory"; }
  std::string sha256() const override { return "random-" + std::to_string(config_.layers); }
  std::int64_t file_bytes() const override { return 0; }

 private:
  ModelConfig config_;
  bool biases_;
};

inline Model random_model(Variety variety = Variety::kPlain) {
  return Model(std::make_shared<RandomSource>(small_config(variety), variety == Variety::kBiased));
}

}  // namespace attar::testing
