#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"
#include "compress/io/gguf_file.h"
#include "compress/io/gguf_writer.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using ::testing::HasSubstr;

nlohmann::json llama() {
  return {{"model_type", "llama"},  {"hidden_size", 64},        {"intermediate_size", 96},
          {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"vocab_size", 40},
          {"rms_norm_eps", 1e-5},   {"rope_theta", 500000.0},   {"eos_token_id", {7, 8}}};
}

nlohmann::json with(nlohmann::json changes) {
  nlohmann::json config = llama();
  config.update(changes);
  return config;
}

std::string refusal(const nlohmann::json& changes) {
  return message_of<BadInput>([&] { config_from_json(with(changes), "x/config.json"); });
}

TEST(ConfigJson, HasTheDefaultsOfTransformers) {
  const ModelConfig config = config_from_json(llama(), "x");
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_positions, 2048);
  EXPECT_EQ(config.activation, Activation::kSilu);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.bos, std::nullopt);
  EXPECT_EQ(config.eos, 7);
}

TEST(ConfigJson, HasTheHeadSizeOfAFamilyWhereNoneIsSaid) {
  EXPECT_EQ(config_from_json(llama(), "x").head_dim, 16);
  EXPECT_EQ(
      config_from_json(with({{"model_type", "qwen3"}, {"num_key_value_heads", 2}}), "x").head_dim,
      128);
}

TEST(ConfigJson, ReadsOldAndNewFormsOfTheRopeAlike) {
  const nlohmann::json llama3 = {{"factor", 8.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 8192}};
  nlohmann::json with_type = llama3, with_theta = llama3;
  with_type["rope_type"] = "llama3";
  with_theta.update({{"rope_type", "llama3"}, {"rope_theta", 500000.0}});
  const ModelConfig old_form = config_from_json(with({{"rope_scaling", with_type}}), "x");
  nlohmann::json v5 = with({{"rope_parameters", with_theta}});
  v5.erase("rope_theta");
  const ModelConfig new_form = config_from_json(v5, "x");
  v5["rope_parameters"] = {{"full_attention", with_theta}};
  const ModelConfig nested = config_from_json(v5, "x");
  for (const ModelConfig& config : {old_form, new_form, nested}) {
    EXPECT_EQ(config.rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(config.rope.theta, 500000.0);
    EXPECT_EQ(config.rope.factor, 8.0);
    EXPECT_EQ(config.rope.original_positions, 8192);
  }
  const ModelConfig linear =
      config_from_json(with({{"rope_scaling", {{"type", "linear"}, {"factor", 2.5}}}}), "x");
  EXPECT_EQ(linear.rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope.factor, 2.5);
}

TEST(ConfigJson, RefusesWhatIsNotComputedAndSaysWhatIs) {
  EXPECT_THAT(refusal({{"model_type", "mamba"}}), HasSubstr("supported: llama, mistral, qwen2"));
  EXPECT_THAT(refusal({{"hidden_act", "tanhshrink"}}), HasSubstr("gelu_pytorch_tanh"));
  EXPECT_THAT(refusal({{"rope_scaling", {{"type", "yarn"}, {"factor", 2}}}}),
              HasSubstr("supported: default, linear, llama3"));
  EXPECT_THAT(refusal({{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}),
              HasSubstr("partial_rotary_factor must be 1"));
  EXPECT_THAT(refusal({{"hidden_size", nullptr}}), HasSubstr("'hidden_size' is missing"));
  EXPECT_THAT(refusal({{"hidden_size", "64"}}), HasSubstr("must be an integer"));
  EXPECT_THAT(refusal({{"hidden_size", 1e300}}), HasSubstr("must be an integer"));
  EXPECT_THAT(refusal({{"num_hidden_layers", -1}}), HasSubstr("number of layers"));
  EXPECT_THAT(refusal({{"num_attention_heads", 0}}), HasSubstr("num_attention_heads"));
  EXPECT_THAT(refusal({{"num_key_value_heads", 3}}), HasSubstr("must divide"));
  EXPECT_THAT(refusal({{"eos_token_id", "</s>"}}), HasSubstr("eos_token_id"));
  EXPECT_THAT(refusal({{"rope_theta", std::numeric_limits<double>::infinity()}}),
              HasSubstr("must be positive numbers"));
  EXPECT_THAT(refusal({{"vocab_size", 18446744073709551615U}}), HasSubstr("vocab_size"));
  const auto list = message_of<BadInput>([] { config_from_json(nlohmann::json::array(), "x"); });
  EXPECT_THAT(list, HasSubstr("must be a JSON object"));
}

TEST(ConfigJson, AllowsAWindowOnlyWhereItChangesNothing) {
  const nlohmann::json mistral = {{"model_type", "mistral"}, {"max_position_embeddings", 4096}};
  nlohmann::json null_window = mistral, wide = mistral, narrow = mistral;
  null_window["sliding_window"] = nullptr;
  wide["sliding_window"] = 4096;
  narrow["sliding_window"] = 1024;
  nlohmann::json config = with(null_window);
  config["num_key_value_heads"] = 2;
  EXPECT_EQ(config_from_json(config, "x").family, "mistral");
  config["sliding_window"] = 4096;
  EXPECT_NO_THROW(config_from_json(config, "x"));
  config["sliding_window"] = 1024;
  EXPECT_THAT(message_of<BadInput>([&] { config_from_json(config, "x"); }),
              HasSubstr("sliding_window of 1024"));
  config = with({{"model_type", "qwen2"},
                 {"use_sliding_window", false},
                 {"sliding_window", 16},
                 {"num_key_value_heads", 2}});
  EXPECT_NO_THROW(config_from_json(config, "x"));
}

TEST(ConfigJson, SaysWhichLayersHaveBiases) {
  const Family& qwen = family_named("qwen2");
  const Biases of_qwen = biases_from_json(llama(), qwen, "x");
  EXPECT_TRUE(of_qwen[index_of(Role::kValue)]);
  EXPECT_FALSE(of_qwen[index_of(Role::kOutput)]);
  const Biases of_llama =
      biases_from_json(with({{"attention_bias", true}}), family_named("llama"), "x");
  EXPECT_TRUE(of_llama[index_of(Role::kOutput)]);
  EXPECT_FALSE(of_llama[index_of(Role::kUp)]);
}

TEST(ConfigJson, ComesBackFromItsSynthesizedForm) {
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
    nlohmann::json json = with({{"model_type", family},
                                {"num_key_value_heads", 2},
                                {"head_dim", 24},
                                {"sliding_window", nullptr},
                                {"tie_word_embeddings", true},
                                {"rope_scaling",
                                 {{"rope_type", "llama3"},
                                  {"factor", 32.0},
                                  {"low_freq_factor", 1.0},
                                  {"high_freq_factor", 4.0},
                                  {"original_max_position_embeddings", 8192}}}});
    const ModelConfig config = config_from_json(json, "x");
    Biases biases{};
    if (config.family == "qwen2") biases[0] = biases[1] = biases[2] = true;
    const nlohmann::json made = config_to_json(config, biases, "float16");
    const ModelConfig back = config_from_json(made, "made");
    EXPECT_EQ(back.family, family);
    EXPECT_EQ(back.head_dim, 24);
    EXPECT_EQ(back.head_norms, std::string(family) == "qwen3");
    EXPECT_EQ(back.kv_heads, 2);
    EXPECT_EQ(back.norm_eps, config.norm_eps);
    EXPECT_EQ(back.rope.factor, 32.0);
    EXPECT_EQ(back.rope.scaling, RopeScaling::kLlama3);
    EXPECT_TRUE(back.tied_head);
    EXPECT_EQ(back.eos, 7);
    EXPECT_EQ(biases_from_json(made, family_named(family), "made"), biases);
  }
}

// Metadata of a model of two blocks in llama.cpp's "deci".
ModelConfig uneven(std::vector<std::uint32_t> heads, std::vector<std::uint32_t> kv_heads,
                   std::vector<std::uint32_t> neurons) {
  const io::testing::TemporaryFolder folder;
  io::GgufWriter writer(folder / "m.gguf");
  writer.set_string("general.architecture", "deci");
  for (const auto& [key, value] :
       std::map<std::string, std::uint32_t>{{"block_count", 2},
                                            {"embedding_length", 64},
                                            {"context_length", 32},
                                            {"vocab_size", 8},
                                            {"attention.key_length", 16},
                                            {"attention.value_length", 16}}) {
    writer.set_u32("deci." + key, value);
  }
  writer.set_f32("deci.attention.layer_norm_rms_epsilon", 1e-5F);
  writer.set_u32s("deci.attention.head_count", heads);
  writer.set_u32s("deci.attention.head_count_kv", kv_heads);
  writer.set_u32s("deci.feed_forward_length", neurons);
  writer.finish();
  return config_from_gguf(io::GgufFile::open(folder / "m.gguf"));
}

TEST(ConfigGguf, StatesWidthsBlockByBlock) {
  const ModelConfig config = uneven({4, 2}, {2, 1}, {96, 32});
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.block_widths, (std::vector<BlockWidths>{{96, 4, 2}, {32, 2, 1}}));
  EXPECT_TRUE(uneven({4, 4}, {2, 2}, {96, 96}).uniform());
}

// Blocks of Nemotron-NAS may have no attention, a linear layer in its place, or no MLP.
TEST(ConfigGguf, ReadsBlocksWithoutAttentionAndRefusesTheOthers) {
  const ModelConfig config = uneven({4, 0}, {2, 0}, {96, 32});
  EXPECT_TRUE(config.of_block(0).attends());
  EXPECT_FALSE(config.of_block(1).attends());
  EXPECT_EQ(roles_of(config.of_block(1)).size(), 3);
  EXPECT_EQ(norms_of(config.of_block(1)).size(), 1);
  const auto refused = [](auto... widths) {
    return message_of<BadInput>([&] { uneven(widths...); });
  };
  using List = std::vector<std::uint32_t>;
  EXPECT_THAT(refused(List{0, 0}, List{0, 0}, List{96, 32}), HasSubstr("must be positive"));
  EXPECT_THAT(refused(List{4, 0}, List{2, 1}, List{96, 32}), HasSubstr("block 1 has 0 heads"));
  EXPECT_THAT(refused(List{4, 4}, List{2, 0}, List{96, 32}), HasSubstr("0 key-value heads"));
  EXPECT_THAT(refused(List{4, 4}, List{2, 2}, List{96, 0}), HasSubstr("0 neurons"));
  EXPECT_THAT(refused(List{4, 4}, List{2, 3}, List{96, 96}), HasSubstr("3 key-value heads"));
  EXPECT_THAT(refused(List{4}, List{2, 2}, List{96, 96}), HasSubstr("model's 2 layers"));
}

// Llama 3.2 1B: theta 5e5, head 64. The factors of llama.cpp's converter: 1 for short waves, 32 for
// long ones, between them a smooth band.
TEST(RopeFactors, AreOneForShortWavesAndTheFactorForLongOnes) {
  ModelConfig config = config_from_json(with({{"head_dim", 64},
                                              {"rope_scaling",
                                               {{"rope_type", "llama3"},
                                                {"factor", 32.0},
                                                {"low_freq_factor", 1.0},
                                                {"high_freq_factor", 4.0},
                                                {"original_max_position_embeddings", 8192}}}}),
                                        "x");
  const std::vector<float> factors = llama3_factors(config);
  ASSERT_EQ(factors.size(), 32);
  EXPECT_EQ(factors.front(), 1.0F);
  EXPECT_EQ(factors.back(), 32.0F);
  EXPECT_TRUE(std::is_sorted(factors.begin(), factors.end()));
  EXPECT_GT(std::count_if(factors.begin(), factors.end(), [](float f) { return f > 1 && f < 32; }),
            0);
  config.rope.stored_factors = factors;
  config.rope.scaling = RopeScaling::kNone;
  const Rope recognized = recognize_llama3(config);
  EXPECT_EQ(recognized.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(recognized.factor, 32.0);
  EXPECT_EQ(recognized.original_positions, 8192);
  config.rope.stored_factors[3] = 1.5F;
  EXPECT_EQ(recognize_llama3(config).stored_factors, config.rope.stored_factors);
  EXPECT_THROW(config_to_json(config, {}, "float16"), DoesNotFit);
}

TEST(FamilyNames, FillInTheNumberOfTheBlock) {
  EXPECT_EQ(fill("blk.{}.attn_q", 12), "blk.12.attn_q");
  EXPECT_EQ(fill("output_norm", 12), "output_norm");
  EXPECT_TRUE(is_ignored_buffer("model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(is_ignored_buffer("model.layers.0.self_attn.q_proj.bias"));
}

}  // namespace
}  // namespace attar
