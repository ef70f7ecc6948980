#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/formats/file_source.h"
#include "compress/formats/model_file.h"
#include "compress/formats/tensor_view.h"
#include "compress/io/json.h"
#include "tests/formats/tiny_model.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using io::testing::slurp;
using io::testing::TemporaryFolder;
using ::testing::HasSubstr;
using testing::TinyModel;
using testing::write_tiny_model;

std::string refusal(const std::filesystem::path& path) {
  return message_of<BadInput>([&] { open_model(path); });
}

TEST(OpenFolder, ReadsEveryTensorFromOneFileAndFromShards) {
  const TemporaryFolder one, three;
  TinyModel tiny{.tied = false, .biases = true};
  write_tiny_model(one.path(), tiny);
  tiny.shards = 3;
  write_tiny_model(three.path(), tiny);
  const Model a(open_model(one.path())), b(open_model(three.path()));
  // Seeds follow the order in which tensors are written, so only shapes agree; each is read whole.
  const auto left = testing::dense_tensors(a), right = testing::dense_tensors(b);
  EXPECT_EQ(left.size(), right.size());
  for (const auto& [name, tensor] : left) EXPECT_EQ(tensor.sizes(), right.at(name).sizes()) << name;
  EXPECT_EQ(a.config().eos, 2);
  EXPECT_EQ(a.source().format(), "huggingface");
  EXPECT_EQ(a.source().file_bytes(), std::filesystem::file_size(one / "model.safetensors"));
}

TEST(OpenFolder, HandsOutViewsOfTheFileThatOutliveTheSource) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.type = io::ElementType::bf16});
  Block block;
  {
    const auto source = open_model(folder.path());
    block = source->read_block(1);
    const at::Tensor again = std::get<DenseWeight>(source->read_block(1)[Role::kUp].weight).values;
    EXPECT_EQ(std::get<DenseWeight>(block[Role::kUp].weight).values.const_data_ptr(),
              again.const_data_ptr());
    source->done_with_block(1);
  }
  const at::Tensor values = std::get<DenseWeight>(block[Role::kUp].weight).values;
  EXPECT_EQ(values.scalar_type(), at::kBFloat16);
  EXPECT_GT(values.to(at::kFloat).abs().sum().item<float>(), 0);
}

TEST(OpenFolder, ReadsTensorsThatAreNotAligned) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  const Model before(open_model(folder.path()));
  // Two more spaces in the header move every tensor off its alignment.
  std::string bytes = slurp(folder / "model.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  bytes.insert(8 + length, "  ");
  length += 2;
  std::memcpy(bytes.data(), &length, 8);
  const TemporaryFolder moved;
  moved.put("model.safetensors", bytes);
  moved.put("config.json", slurp(folder / "config.json"));
  testing::expect_same_tensors(Model(open_model(moved.path())), before);
}

TEST(OpenFolder, UsesTheEmbeddingAsATiedHead) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  const Model model(open_model(folder.path()));
  EXPECT_TRUE(model.config().tied_head);
  EXPECT_TRUE(at::equal(dense(model.head()), dense(model.embedding())));
}

TEST(OpenFolder, NamesTheTensorThatIsMissingOrTooMuchOrMisshapen) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  nlohmann::json config = io::load_json(folder / "config.json");
  const auto refusal_with = [&](const nlohmann::json& changes) {
    nlohmann::json changed = config;
    changed.update(changes);
    io::write_json(folder / "config.json", changed);
    return refusal(folder.path());
  };
  EXPECT_THAT(refusal_with({{"num_hidden_layers", 3}}), HasSubstr("model.layers.2."));
  EXPECT_THAT(refusal_with({{"num_hidden_layers", 1}}),
              HasSubstr("'model.layers.1.input_layernorm.weight' is not part of a llama model"));
  EXPECT_THAT(refusal_with({{"attention_bias", true}}), HasSubstr("q_proj.bias"));
  EXPECT_THAT(refusal_with({{"tie_word_embeddings", false}}), HasSubstr("lm_head.weight"));
  EXPECT_THAT(refusal_with({{"intermediate_size", 128}}),
              HasSubstr("shape must be [128, 64] by config.json, got [96, 64]"));
  EXPECT_THAT(refusal_with({{"quantization_config", {{"quant_method", "gptq"}}}}),
              HasSubstr("quant_method 'gptq' is not supported"));
}

TEST(OpenFolder, ToleratesStoredBuffersAndAHeadBesideATiedEmbedding) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.tied = false});
  nlohmann::json config = io::load_json(folder / "config.json");
  config["tie_word_embeddings"] = true;
  io::write_json(folder / "config.json", config);
  EXPECT_NO_THROW(open_model(folder.path()));
}

TEST(OpenModel, SaysWhatToGiveInstead) {
  const TemporaryFolder folder;
  const std::string nothing = message_of<IoError>([&] { open_model(folder / "not there"); });
  EXPECT_THAT(nothing, HasSubstr("there is no such file or folder"));
  EXPECT_THAT(refusal(folder.path()), HasSubstr("has no config.json"));
  EXPECT_THAT(refusal(folder.put("model.txt", "x")), HasSubstr("neither a folder nor a .gguf"));
  folder.put("config.json", "{}");
  EXPECT_THAT(refusal(folder.path()), HasSubstr("has no weights"));
  folder.put("pytorch_model.bin", "x");
  EXPECT_THAT(refusal(folder.path()), HasSubstr("convert them to safetensors"));
  EXPECT_THAT(refusal(folder.put("x.gguf", "GGUF")), HasSubstr("x.gguf"));
  EXPECT_THAT(message_of<BadInput>([&] { load_model_tokenizer(folder.path()); }),
              HasSubstr("has no tokenizer"));
}

TEST(OpenModel, DrawsTheWeightsOfAModelThatIsToBeTrainedFromNothing) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.tied = false});
  std::filesystem::remove(folder / "model.safetensors");
  io::write_json(folder / "initialise.json", nlohmann::json{{"seed", 3}, {"deviation", 0.05}});
  const auto source = open_model(folder.path());
  EXPECT_EQ(source->format(), "initial");
  const at::Tensor up = std::get<DenseWeight>(source->read_block(0)[Role::kUp].weight).values;
  const at::Tensor down = std::get<DenseWeight>(source->read_block(0)[Role::kDown].weight).values;
  EXPECT_NEAR(up.std().item<double>(), 0.05, 0.003);
  EXPECT_NEAR(down.std().item<double>(), 0.05 / 2, 0.0015);  // two blocks
  const auto again = open_model(folder.path());
  EXPECT_TRUE(at::equal(up, std::get<DenseWeight>(again->read_block(0)[Role::kUp].weight).values));
  EXPECT_EQ(source->sha256(), again->sha256());
  io::write_json(folder / "initialise.json", nlohmann::json{{"seed", 4}, {"deviation", 0.05}});
  EXPECT_NE(source->sha256(), open_model(folder.path())->sha256());
  io::write_json(folder / "initialise.json", nlohmann::json{{"sed", 4}});
  EXPECT_THROW(open_model(folder.path()), UsageError);
}

TEST(StoredWeight, TellsFromHeadersWhatTheFileHolds) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.biases = true, .type = io::ElementType::f16});
  const auto source = open_model(folder.path());
  const StoredWeight stored = stored_weight(*source, 1, Role::kDown);
  EXPECT_EQ(stored.tensor, "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(stored.type, "F16");
  EXPECT_EQ(stored.scheme, std::nullopt);
  EXPECT_EQ(stored.dense_type, at::kHalf);
  EXPECT_EQ(stored.bytes, 64 * 96 * 2);
  EXPECT_TRUE(stored.bias);
}

}  // namespace
}  // namespace attar
