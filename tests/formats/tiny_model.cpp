#include "tests/formats/tiny_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "compress/formats/tensor_view.h"
#include "compress/io/json.h"
#include "compress/io/safetensors_file.h"

namespace attar::testing {
namespace {

nlohmann::json config_of(const TinyModel& tiny) {
  nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                           {"model_type", "llama"},
                           {"hidden_size", tiny.hidden},
                           {"intermediate_size", tiny.ffn},
                           {"num_hidden_layers", tiny.layers},
                           {"num_attention_heads", tiny.heads},
                           {"num_key_value_heads", tiny.kv_heads},
                           {"vocab_size", tiny.vocabulary},
                           {"max_position_embeddings", 128},
                           {"rms_norm_eps", 1e-5},
                           {"rope_theta", 10000.0},
                           {"hidden_act", "silu"},
                           {"attention_bias", tiny.biases},
                           {"mlp_bias", tiny.biases},
                           {"tie_word_embeddings", tiny.tied},
                           {"torch_dtype", "float32"},
                           {"bos_token_id", 1},
                           {"eos_token_id", {2, 3}}};
  config.update(tiny.extra);
  return config;
}

std::map<std::string, std::vector<std::int64_t>> shapes_of(const TinyModel& t) {
  const std::int64_t head_dim = t.hidden / t.heads, kv = t.kv_heads * head_dim;
  std::map<std::string, std::vector<std::int64_t>> shapes = {
      {"model.embed_tokens.weight", {t.vocabulary, t.hidden}}, {"model.norm.weight", {t.hidden}}};
  if (!t.tied) shapes["lm_head.weight"] = {t.vocabulary, t.hidden};
  for (std::int64_t i = 0; i < t.layers; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".";
    shapes[block + "input_layernorm.weight"] = {t.hidden};
    shapes[block + "post_attention_layernorm.weight"] = {t.hidden};
    const std::map<std::string, std::vector<std::int64_t>> linears = {
        {"self_attn.q_proj", {t.hidden, t.hidden}}, {"self_attn.k_proj", {kv, t.hidden}},
        {"self_attn.v_proj", {kv, t.hidden}},       {"self_attn.o_proj", {t.hidden, t.hidden}},
        {"mlp.gate_proj", {t.ffn, t.hidden}},       {"mlp.up_proj", {t.ffn, t.hidden}},
        {"mlp.down_proj", {t.hidden, t.ffn}}};
    for (const auto& [name, shape] : linears) {
      shapes[block + name + ".weight"] = shape;
      if (t.biases) shapes[block + name + ".bias"] = {shape[0]};
    }
  }
  return shapes;
}

}  // namespace

at::Tensor random_values(std::vector<std::int64_t> shape, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator).to(at::kBFloat16).to(at::kHalf).to(at::kFloat);
}

void write_tiny_model(const std::filesystem::path& folder, const TinyModel& tiny) {
  io::write_json(folder / "config.json", config_of(tiny));
  const auto shapes = shapes_of(tiny);
  std::vector<std::vector<io::TensorPlan>> plans(static_cast<std::size_t>(tiny.shards));
  nlohmann::json places;
  std::size_t next = 0;
  const auto file_of = [&](std::size_t shard) {
    return tiny.shards == 1 ? std::string("model.safetensors")
                            : "part-" + std::to_string(shard) + ".safetensors";
  };
  for (const auto& [name, shape] : shapes) {
    const std::size_t shard = next++ % plans.size();
    plans[shard].push_back({name, tiny.type, shape});
    places[name] = file_of(shard);
  }
  std::uint64_t seed = tiny.seed * 1000;
  for (std::size_t shard = 0; shard < plans.size(); ++shard) {
    io::SafetensorsWriter writer(folder / file_of(shard), plans[shard]);
    for (const io::TensorPlan& plan : plans[shard]) {
      const at::Tensor values = random_values(plan.shape, seed++);
      writer.append(plan.name, bytes_of(values.to(scalar_type_of(plan.type, "test"))));
    }
    writer.finish();
  }
  if (tiny.shards > 1) {
    io::write_json(folder / "model.safetensors.index.json",
                   nlohmann::json{{"metadata", {{"total_size", 0}}}, {"weight_map", places}});
  }
}

std::map<std::string, at::Tensor> dense_tensors(const Model& model) {
  std::map<std::string, at::Tensor> tensors = {
      {"model.embed_tokens.weight", dense(model.embedding())},
      {"model.norm.weight", model.final_norm()},
      {"lm_head.weight", dense(model.head())}};
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    const Block block = model.block(i);
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    for (const Norm norm : kNorms) {
      if (!block[norm].defined()) continue;
      tensors[prefix + std::string(short_name(norm)) + ".weight"] = block[norm];
    }
    for (const Role role : kRoles) {
      tensors[layer_name(i, role) + ".weight"] = dense(block[role].weight);
      if (block[role].bias.defined()) tensors[layer_name(i, role) + ".bias"] = block[role].bias;
    }
  }
  return tensors;
}

void expect_same_tensors(const Model& got, const Model& expected) {
  const auto left = dense_tensors(got), right = dense_tensors(expected);
  for (const auto& [name, tensor] : right) {
    ASSERT_TRUE(left.contains(name)) << name << " is missing";
    EXPECT_TRUE(at::equal(left.at(name), tensor)) << name << " differs";
  }
  EXPECT_EQ(left.size(), right.size());
}

}  // namespace attar::testing
