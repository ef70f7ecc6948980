#include "compress/formats/compressed_floats.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "compress/formats/block_file.h"
#include "compress/formats/export.h"
#include "compress/formats/file_source.h"
#include "compress/formats/model_file.h"
#include "compress/io/safetensors_file.h"
#include "tests/formats/tiny_model.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using io::testing::TemporaryFolder;
using ::testing::HasSubstr;

QuantizedWeight rounded(const at::Tensor& values, BlockGrid block) {
  return quantize_to_grid(values, choose_grid(values, block_scheme(block)));
}

// Columns 0 and 1 share a byte, the even one in the low half; 2^1 is byte 128.
TEST(CompressedFloats, PackTheGoldenRowOfMxfp4) {
  at::Tensor codes = at::full({1, 32}, 0, at::kByte);
  codes[0][0] = 7, codes[0][1] = 12, codes[0][2] = 1;
  const QuantScheme scheme = block_scheme(BlockGrid::kMxfp4);
  const PackedWeight packed = pack_floats({scheme, codes, at::full({1, 1}, 2.0, at::kFloat), {}});
  EXPECT_EQ(packed.packed.sizes(), (at::IntArrayRef{1, 16}));
  EXPECT_EQ(packed.packed[0][0].item<int>(), 0xc7);
  EXPECT_EQ(packed.packed[0][1].item<int>(), 0x01);
  EXPECT_EQ(packed.scale[0][0].item<int>(), 128);
  EXPECT_THROW(pack_floats({scheme, codes, at::full({1, 1}, 3.0, at::kFloat), {}}),
               std::logic_error);
}

class FloatFormats : public ::testing::TestWithParam<BlockGrid> {
 protected:
  static void round_layers(Model& model, BlockGrid block) {
    for (std::int64_t i = 0; i < model.config().layers; ++i) {
      Block layers = model.block(i);
      for (const Role role : kRoles) {
        layers[role].weight = rounded(dense(layers[role].weight), block);
      }
      model.put_block(i, layers);
    }
  }
};

TEST_P(FloatFormats, ComeBackFromTheConfiguration) {
  const QuantScheme scheme = block_scheme(GetParam());
  const nlohmann::json config = quantization_config({{"a", scheme}, {"b", scheme}}, {"lm_head"});
  EXPECT_EQ(config.at("format"),
            GetParam() == BlockGrid::kFp8 ? "float-quantized" : "mxfp4-pack-quantized");
  EXPECT_EQ(config.at("config_groups").at("group_0").at("weights").at("type"), "float");
  EXPECT_EQ(schemes_from_config(config, "test")("a"), scheme);
  EXPECT_EQ(schemes_from_config(config, "test")("lm_head"), std::nullopt);
  const auto refused = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json bad = config;
    bad[nlohmann::json::json_pointer(pointer)] = value;
    return message_of<BadInput>([&] { schemes_from_config(bad, "config.json"); });
  };
  EXPECT_THAT(refused("/config_groups/group_0/weights/num_bits", 6), HasSubstr("as 8 bits"));
  EXPECT_THAT(refused("/config_groups/group_0/weights/strategy", "block"), HasSubstr("channel"));
  EXPECT_THAT(refused("/config_groups/group_0/weights/symmetric", false), HasSubstr("symmetric"));
  EXPECT_THAT(refused("/config_groups/group_0/format", "nvfp4-pack-quantized"),
              HasSubstr("supported"));
  EXPECT_THAT(refused("/config_groups/group_0/input_activations", {{"num_bits", 8}}),
              HasSubstr(GetParam() == BlockGrid::kFp8 ? "float, symmetric, dynamic, strategy token"
                                                      : "weights alone"));
}

// compressed-tensors' preset FP8_DYNAMIC.
TEST(CompressedFloats, SayThatTokensAreRoundedToFp8) {
  QuantScheme scheme = block_scheme(BlockGrid::kFp8);
  scheme.activation_bits = 8;
  nlohmann::json config = quantization_config({{"a", scheme}}, {"lm_head"});
  const nlohmann::json& group = config.at("config_groups").at("group_0");
  EXPECT_EQ(group.at("format"), "float-quantized");
  EXPECT_EQ(group.at("input_activations").at("type"), "float");
  EXPECT_EQ(group.at("input_activations").at("strategy"), "token");
  EXPECT_EQ(group.at("input_activations").at("dynamic"), true);
  EXPECT_EQ(schemes_from_config(config, "test")("a"), scheme);
  for (const auto& [key, value] : {std::pair<const char*, nlohmann::json>{"type", "int"},
                                   {"dynamic", false},
                                   {"strategy", "tensor"}}) {
    nlohmann::json bad = config;
    bad["config_groups"]["group_0"]["input_activations"][key] = value;
    EXPECT_THAT(message_of<BadInput>([&] { schemes_from_config(bad, "config.json"); }),
                HasSubstr("float, symmetric, dynamic, strategy token"));
  }
}

TEST_P(FloatFormats, ComeBackFromAFolderAndACheckpointWithTheSameCodes) {
  const TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), {.tied = false, .biases = true});
  Model model(open_model(folder.path()));
  round_layers(model, GetParam());
  ExportOptions options;
  options.format = ExportFormat::kCompressedTensors;
  const ExportReport report = export_model(model, folder / "out", options);
  EXPECT_EQ(report.bytes, std::filesystem::file_size(folder / "out/model.safetensors"));
  const Model back(open_model(folder / "out"));
  testing::expect_same_tensors(back, model);
  write_block_file(folder / "block", model.block(1));
  const Block checkpoint = read_block_file(folder / "block", true), read = back.block(1);
  const Block written = model.block(1);
  for (const Role role : kRoles) {
    const auto& expected = std::get<QuantizedWeight>(written[role].weight);
    for (const Block* block : {&checkpoint, &read}) {
      const auto& found = std::get<QuantizedWeight>((*block)[role].weight);
      EXPECT_EQ(found.scheme, expected.scheme);
      EXPECT_TRUE(at::equal(found.codes, expected.codes));
      EXPECT_TRUE(at::equal(found.scale, expected.scale));
    }
  }
  EXPECT_EQ(stored_weight(back.source(), 0, Role::kUp).type, to_string(GetParam()));
  const auto file = io::SafetensorsFile::open(folder / "out/model.safetensors");
  const bool fp8 = GetParam() == BlockGrid::kFp8;
  const std::string module = "model.layers.0.mlp.down_proj.weight";
  for (const io::TensorView& tensor : file.tensors()) {
    if (tensor.name != module + (fp8 ? "" : "_packed")) continue;
    EXPECT_EQ(tensor.type, fp8 ? io::ElementType::f8_e4m3 : io::ElementType::u8);
    EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{64, fp8 ? 96 : 48}));
  }
}

TEST_P(FloatFormats, NameTheTensorOfADamagedLayer) {
  const QuantScheme scheme = block_scheme(GetParam());
  const bool fp8 = GetParam() == BlockGrid::kFp8;
  const QuantizedWeight weight = rounded(testing::random_values({16, 64}, 3), GetParam());
  const PackedWeight good = pack_floats(weight);
  const auto refused = [&](const PackedWeight& bad) {
    return message_of<BadInput>([&] { unpack_floats(bad, scheme, {16, 64}, "folder: layer"); });
  };
  EXPECT_TRUE(
      at::equal(unpack_floats(good, scheme, {16, 64}, "folder: layer").codes, weight.codes));
  PackedWeight bad = good;
  bad.scale = good.scale.narrow(0, 0, 8);
  EXPECT_THAT(refused(bad), HasSubstr("folder: layer"));
  EXPECT_THAT(refused(bad), HasSubstr("weight_scale must be"));
  bad = good;
  bad.packed = good.packed.narrow(1, 0, 16);
  EXPECT_THAT(refused(bad), HasSubstr(fp8 ? "weight must be F8_E4M3 [16, 64]"
                                          : "weight_packed must be U8 [16, 32]"));
  bad = good;
  (fp8 ? bad.packed : bad.scale) = (fp8 ? good.packed : good.scale).clone().fill_(255);
  EXPECT_THAT(refused(bad), HasSubstr(fp8 ? "not a number" : "NaN"));
}

INSTANTIATE_TEST_SUITE_P(All, FloatFormats, ::testing::Values(BlockGrid::kFp8, BlockGrid::kMxfp4),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST(FloatFormatsOfExports, SayWhichFileHoldsNf4AndThatNoGgufHoldsAny) {
  EXPECT_THAT(*compressed_tensors_misfit(block_scheme(BlockGrid::kNf4), {64, 64}, false),
              HasSubstr("no NF4; export as huggingface"));
  const TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), {});
  const auto source = open_model(folder.path());
  const auto misfit = [&](BlockGrid block) {
    ExportOptions options;
    options.format = ExportFormat::kGguf;
    PlannedLayers changed;
    changed["model.layers.0.self_attn.q_proj"] = block_scheme(block);
    return message_of<DoesNotFit>([&] {
      check_export(*source, {source->config(), changed}, options);
    });
  };
  EXPECT_THAT(misfit(BlockGrid::kFp8), HasSubstr("hold no FP8; export as compressed-tensors"));
  EXPECT_THAT(misfit(BlockGrid::kNf4), HasSubstr("hold no NF4; export as huggingface"));
}

}  // namespace
}  // namespace attar
