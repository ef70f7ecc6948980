#include "compress/formats/compressed_tensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "tests/formats/round_to_nearest.h"
#include "tests/formats/tiny_model.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;

std::uint32_t word(const at::Tensor& packed, std::int64_t i) {
  return static_cast<std::uint32_t>(packed.view({-1})[i].item<std::int32_t>());
}

// By hand: signed codes -8 .. 7, stored without sign.
TEST(CompressedTensors, PacksTheGoldenRowOfFourBits) {
  const QuantScheme scheme{4, 0, ZeroPoint::kSymmetric, at::kHalf};
  const QuantizedWeight weight{
      scheme, at::arange(16, at::kByte).view({1, 16}), at::ones({1, 1}), {}};
  const PackedWeight packed = pack(weight);
  EXPECT_EQ(word(packed.packed, 0), 0x76543210U);
  EXPECT_EQ(word(packed.packed, 1), 0xfedcba98U);
}

// By hand: -128, -1, 0, 127.
TEST(CompressedTensors, PacksTheGoldenRowOfEightBits) {
  const QuantScheme scheme{8, 0, ZeroPoint::kSymmetric, at::kHalf};
  const at::Tensor codes = at::tensor({0, 127, 128, 255}, at::kByte).view({1, 4});
  EXPECT_EQ(word(pack({scheme, codes, at::ones({1, 1}), {}}).packed, 0), 0xff807f00U);
}

TEST(CompressedTensors, PacksZerosAlongTheOutputs) {
  const QuantScheme scheme{4, 2, ZeroPoint::kInteger, at::kHalf};
  const at::Tensor zeros = at::arange(20, at::kFloat).remainder(16).view({10, 2});
  const PackedWeight packed =
      pack({scheme, at::ones({10, 4}, at::kByte), at::ones({10, 2}), zeros});
  EXPECT_EQ(packed.zero_point.sizes(), (at::IntArrayRef{2, 2}));
  // Group 0 of outputs 0..7 is 0, 2, .., 14; of outputs 8, 9 it is 0, 2.
  EXPECT_EQ(word(packed.zero_point, 0), 0xeca86420U);
  EXPECT_EQ(word(packed.zero_point, 2), 0x00000020U);
}

QuantScheme w8a8() {
  QuantScheme scheme{8, 0, ZeroPoint::kSymmetric, at::kHalf};
  scheme.activation_bits = 8;
  return scheme;
}

// Codes with their sign, as they stand in the arithmetic.
TEST(CompressedTensors, HoldsWeightsOfRoundedActivationsAsSignedBytes) {
  const at::Tensor codes = at::tensor({0, 127, 128, 255}, at::kByte).view({1, 4});
  const QuantizedWeight weight{w8a8(), codes, at::ones({1, 1}) * 0.5, {}};
  const PackedWeight packed = pack(weight);
  EXPECT_TRUE(at::equal(packed.packed, at::tensor({-128, -1, 0, 127}, at::kChar).view({1, 4})));
  EXPECT_EQ(packed.scale.scalar_type(), at::kHalf);
  EXPECT_FALSE(packed.shape.defined());
  const QuantizedWeight back = unpack(packed, w8a8(), {1, 4}, "test");
  EXPECT_TRUE(at::equal(back.codes, codes));
  EXPECT_TRUE(at::equal(back.scale, weight.scale));
  EXPECT_EQ(back.scheme.activation_bits, 8);
}

TEST(CompressedTensorsConfig, TellsThatActivationsAreRounded) {
  const nlohmann::json config = quantization_config({{"a", w8a8()}, {"b", w8a8()}}, {"lm_head"});
  EXPECT_EQ(config.at("format"), "int-quantized");
  const nlohmann::json& group = config.at("config_groups").at("group_0");
  EXPECT_EQ(group.at("input_activations").at("strategy"), "token");
  EXPECT_EQ(group.at("input_activations").at("dynamic"), true);
  QuantScheme expected = w8a8();
  expected.scale_type = at::kFloat;  // the file's tensors tell
  EXPECT_EQ(schemes_from_config(config, "test")("a"), expected);
  const auto refused = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json bad = config;
    bad["config_groups"]["group_0"]["input_activations"][key] = value;
    return message_of<BadInput>([&] { schemes_from_config(bad, "config.json"); });
  };
  EXPECT_NE(refused("dynamic", false).find("dynamic"), std::string::npos);
  EXPECT_NE(refused("strategy", "tensor").find("strategy token"), std::string::npos);
  EXPECT_NE(refused("num_bits", 4).find("8 bits"), std::string::npos);
}

TEST(CompressedTensors, SaysWhichGridsGoWithRoundedActivations) {
  QuantScheme grouped = w8a8();
  EXPECT_EQ(compressed_tensors_misfit(grouped, {64, 64}, false), std::nullopt);
  grouped.group_size = 32;
  EXPECT_NE(compressed_tensors_misfit(grouped, {64, 64}, false)->find("group_size: 0"),
            std::string::npos);
}

struct Case {
  int bits;
  std::int64_t group;
  ZeroPoint zero_point;
};
class PackedRoundTrip : public ::testing::TestWithParam<Case> {};

TEST_P(PackedRoundTrip, KeepsCodesScalesAndZeros) {
  const auto [bits, group, zero_point] = GetParam();
  const QuantScheme scheme{bits, group, zero_point, at::kBFloat16};
  const QuantizedWeight weight =
      testing::round_to_nearest(testing::random_values({37, 96}, 3), scheme);
  const QuantizedWeight back = unpack(pack(weight), scheme, {37, 96}, "test");
  EXPECT_TRUE(at::equal(back.codes, weight.codes));
  EXPECT_TRUE(at::equal(back.scale, weight.scale));
  ASSERT_EQ(back.zero.defined(), weight.zero.defined());
  if (weight.zero.defined()) {
    EXPECT_TRUE(at::equal(back.zero, weight.zero));
  }
}
INSTANTIATE_TEST_SUITE_P(
    Schemes, PackedRoundTrip,
    ::testing::Values(Case{4, 32, ZeroPoint::kSymmetric}, Case{4, 48, ZeroPoint::kInteger},
                      Case{4, 0, ZeroPoint::kInteger}, Case{8, 0, ZeroPoint::kSymmetric},
                      Case{8, 96, ZeroPoint::kInteger}, Case{2, 16, ZeroPoint::kInteger}),
    [](const auto& info) {
      return "int" + std::to_string(info.param.bits) + "_group" + std::to_string(info.param.group) +
             "_" + std::string(to_string(info.param.zero_point));
    });

TEST(CompressedTensorsConfig, ComesBackAsTheSchemesThatWentIn) {
  const QuantScheme four{4, 32, ZeroPoint::kInteger, at::kHalf};
  const QuantScheme eight{8, 0, ZeroPoint::kSymmetric, at::kHalf};
  const nlohmann::json uniform = quantization_config({{"a", four}, {"b", four}}, {"lm_head"});
  const SchemeOf one = schemes_from_config(uniform, "test");
  EXPECT_EQ(one("a"), four);
  EXPECT_EQ(one("anything"), four);
  EXPECT_EQ(one("lm_head"), std::nullopt);
  const nlohmann::json mixed = quantization_config({{"a", four}, {"b", eight}}, {"lm_head"});
  EXPECT_EQ(mixed.at("format"), "mixed-precision");
  const SchemeOf two = schemes_from_config(mixed, "test");
  EXPECT_EQ(two("a"), four);
  EXPECT_EQ(two("b"), eight);
  EXPECT_EQ(two("c"), std::nullopt);
}

// transformers multiplies in the type of the scale (python_exports_load compares the logits).
TEST(CompressedTensors, StoresScalesOfAsymmetricGridsAsFloat32AndSaysWhatTheyWereRoundedTo) {
  const QuantScheme asymmetric{4, 32, ZeroPoint::kInteger, at::kHalf};
  const QuantScheme symmetric{4, 32, ZeroPoint::kSymmetric, at::kHalf};
  const at::Tensor values = testing::random_values({16, 64}, 3);
  const PackedWeight wide = pack(testing::round_to_nearest(values, asymmetric));
  EXPECT_EQ(wide.scale.scalar_type(), at::kFloat);
  EXPECT_EQ(pack(testing::round_to_nearest(values, symmetric)).scale.scalar_type(), at::kHalf);
  const auto type_of = [](const nlohmann::json& config) {
    return schemes_from_config(config, "test")("a")->scale_type;
  };
  nlohmann::json config = quantization_config({{"a", asymmetric}}, {});
  EXPECT_EQ(type_of(config), at::kHalf);
  config.erase("scale_type");  // as other programs write float32 scales
  EXPECT_EQ(type_of(config), at::kFloat);
  EXPECT_FALSE(quantization_config({{"a", symmetric}}, {}).contains("scale_type"));
}

TEST(CompressedTensors, RefusesScalesThatAreNotOfTheTypeTheConfigurationNames) {
  const QuantScheme scheme{4, 32, ZeroPoint::kInteger, at::kHalf};
  PackedWeight packed =
      pack(testing::round_to_nearest(testing::random_values({16, 64}, 3), scheme));
  packed.scale = packed.scale * 1.0001F;
  const std::string message = message_of<BadInput>([&] {
    unpack(packed, scheme, {16, 64}, "folder: layer");
  });
  EXPECT_NE(message.find("folder: layer"), std::string::npos);
  EXPECT_NE(message.find("beyond float16"), std::string::npos) << message;
}

TEST(CompressedTensorsConfig, SaysWhatItDoesNotRead) {
  const QuantScheme four{4, 32, ZeroPoint::kInteger, at::kHalf};
  const nlohmann::json good = quantization_config({{"a", four}}, {});
  const auto refused = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json bad = good;
    bad[nlohmann::json::json_pointer(pointer)] = value;
    return message_of<BadInput>([&] { schemes_from_config(bad, "config.json"); });
  };
  EXPECT_NE(refused("/quant_method", "gptq").find("compressed-tensors"), std::string::npos);
  EXPECT_NE(refused("/config_groups/group_0/weights/num_bits", 3).find("2, 4 or 8"),
            std::string::npos);
  EXPECT_NE(refused("/config_groups/group_0/weights/strategy", "block").find("group, channel"),
            std::string::npos);
  EXPECT_NE(refused("/scale_type", "float8").find("float16, bfloat16, float32"), std::string::npos);
  EXPECT_NE(refused("/ignore", {"re:.*mlp.*"}).find("pattern"), std::string::npos);
  EXPECT_NE(
      refused("/config_groups/group_0/input_activations", {{"num_bits", 8}}).find("activations"),
      std::string::npos);
}

TEST(CompressedTensors, NamesShapeAndTensorOfADamagedLayer) {
  const QuantScheme scheme{4, 32, ZeroPoint::kInteger, at::kHalf};
  PackedWeight packed =
      pack(testing::round_to_nearest(testing::random_values({16, 64}, 3), scheme));
  packed.scale = packed.scale.narrow(1, 0, 1);
  const std::string message = message_of<BadInput>([&] {
    unpack(packed, scheme, {16, 64}, "folder: layer");
  });
  EXPECT_NE(message.find("folder: layer"), std::string::npos);
  EXPECT_NE(message.find("weight_scale must be floating [16, 2]"), std::string::npos) << message;
}

// A layer that agrees with itself and not with config.json would be read beyond its end.
TEST(CompressedTensors, HoldsALayerToTheShapeThatTheModelHas) {
  const auto refused = [](const QuantScheme& scheme) {
    const PackedWeight packed =
        pack(testing::round_to_nearest(testing::random_values({16, 64}, 3), scheme));
    return message_of<BadInput>([&] { unpack(packed, scheme, {8, 64}, "folder: layer"); });
  };
  EXPECT_NE(refused({4, 32, ZeroPoint::kInteger, at::kHalf}).find("must be [8, 64], got [16, 64]"),
            std::string::npos);
  EXPECT_NE(refused(w8a8()).find("must be I8 [8, 64]"), std::string::npos);
}

// Such groups would be of 32 columns to one reader and of 48 to another.
TEST(CompressedTensors, RefusesGroupsThatDoNotDivideTheInputs) {
  const QuantScheme whole{4, 32, ZeroPoint::kSymmetric, at::kHalf};
  const PackedWeight packed =
      pack(testing::round_to_nearest(testing::random_values({16, 64}, 3), whole));
  QuantScheme other = whole;
  other.group_size = 48;
  const std::string message = message_of<BadInput>([&] {
    unpack(packed, other, {16, 64}, "folder: layer");
  });
  EXPECT_NE(message.find("groups of 48 do not divide 64"), std::string::npos) << message;
}

}  // namespace
}  // namespace attar
