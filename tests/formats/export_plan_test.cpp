#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/formats/export.h"
#include "compress/formats/model_file.h"
#include "tests/formats/tiny_model.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using io::testing::TemporaryFolder;
using ::testing::Contains;
using ::testing::HasSubstr;

class ExportPlans : public ::testing::Test {
 protected:
  ExportPlans() { testing::write_tiny_model(folder_.path(), {.type = io::ElementType::f16}); }

  static PlannedLayers all(const QuantScheme& scheme) {
    PlannedLayers planned;
    for (std::int64_t i = 0; i < 2; ++i) {
      for (const Role role : kRoles) planned[layer_name(i, role)] = scheme;
    }
    return planned;
  }
  ExportPlan plan(ExportFormat format, const PlannedLayers& planned, const std::string& type = "",
                  bool requantize = false) const {
    ExportOptions options;
    options.format = format;
    options.type = type;
    options.requantize = requantize;
    const auto source = open_model(folder_.path());
    return check_export(*source, {source->config(), planned}, options);
  }
  std::string misfit(ExportFormat format, const QuantScheme& scheme,
                     const std::string& type = "") const {
    return message_of<DoesNotFit>([&] { plan(format, all(scheme), type); });
  }

  TemporaryFolder folder_;
};

TEST_F(ExportPlans, SayTypeAndBytesOfEveryTensor) {
  const ExportPlan gguf =
      plan(ExportFormat::kGguf, all({4, 32, ZeroPoint::kSymmetric, at::kHalf}), "auto");
  EXPECT_EQ(gguf.tensors.size(), 2 + 2 * 9);
  const auto of = [](const ExportPlan& plan, std::string_view layer) {
    const auto found = std::find_if(plan.tensors.begin(), plan.tensors.end(),
                                    [&](const TensorExport& one) { return one.layer == layer; });
    return found == plan.tensors.end() ? TensorExport() : *found;
  };
  const TensorExport block = of(gguf, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(block.tensor, "blk.1.ffn_down.weight");
  EXPECT_EQ(block.type, "Q4_0");
  EXPECT_EQ(block.how, "kept codes");
  EXPECT_EQ(block.bytes, 64 * 96 / 32 * 18);
  const ExportPlan packed =
      plan(ExportFormat::kCompressedTensors, all({4, 32, ZeroPoint::kInteger, at::kHalf}));
  const TensorExport groups = of(packed, "model.layers.0.mlp.down_proj");
  EXPECT_EQ(groups.type, "W4 g32 asymmetric");
  // codes, three float32 scales and three 4-bit zeros a row, the shape
  EXPECT_EQ(groups.bytes, 64 * 96 / 2 + 64 * 3 * 4 + 64 * 3 / 2 + 16);
}

TEST_F(ExportPlans, NameLayerRuleAndRemedyOfWhatCompressedTensorsCannotHold) {
  constexpr auto kFormat = ExportFormat::kCompressedTensors;
  const std::string three = misfit(kFormat, {3, 32, ZeroPoint::kInteger, at::kHalf});
  EXPECT_THAT(three, HasSubstr("model.layers.0.self_attn.q_proj"));
  EXPECT_THAT(three, HasSubstr("holds 4 or 8 bits, got 3; use 4 or 8"));
  EXPECT_THAT(misfit(kFormat, {2, 32, ZeroPoint::kInteger, at::kHalf}), HasSubstr("two_bits"));
  EXPECT_THAT(misfit(kFormat, {4, 32, ZeroPoint::kMinimum, at::kHalf}),
              HasSubstr("use an integer zero"));
  EXPECT_THAT(misfit(kFormat, {4, 48, ZeroPoint::kInteger, at::kHalf}),
              HasSubstr("got 48 and 64; use a divisor"));
  EXPECT_THAT(message_of<DoesNotFit>([&] { plan(kFormat, {}); }),
              HasSubstr("quantize with 4 or 8"));
}

TEST_F(ExportPlans, NameLayerRuleAndRemedyOfWhatGgufCannotHold) {
  constexpr auto kFormat = ExportFormat::kGguf;
  const QuantScheme odd_group{4, 16, ZeroPoint::kSymmetric, at::kHalf};
  const std::string group = misfit(kFormat, odd_group);
  EXPECT_THAT(group, HasSubstr("model.layers.0.self_attn.q_proj"));
  EXPECT_THAT(group, HasSubstr("groups of 16 are no multiple"));
  EXPECT_THAT(misfit(kFormat, {8, 32, ZeroPoint::kInteger, at::kHalf}),
              HasSubstr("change bits or zero point"));
  EXPECT_THAT(misfit(kFormat, {4, 32, ZeroPoint::kInteger, at::kHalf}, "Q4_0"),
              HasSubstr("does not fit Q4_0"));
  EXPECT_NO_THROW(plan(kFormat, all(odd_group), "F16"));
  EXPECT_THAT(plan(kFormat, all(odd_group), "Q4_0", /*requantize=*/true).notes,
              Contains(HasSubstr("codes of 14 tensors do not fit")));
  EXPECT_THROW(plan(kFormat, {}, "IQ2_S"), UsageError);
  EXPECT_THROW(plan(ExportFormat::kHuggingFace, {}, "f8"), UsageError);
  EXPECT_THROW(plan(kFormat, {{"model.layers.7.mlp.up_proj", odd_group}}), UsageError);
}

TEST_F(ExportPlans, RefuseBlockTypesForWidthsThatDoNotFillBlocks) {
  const TemporaryFolder narrow;
  testing::write_tiny_model(narrow.path(), {.hidden = 48, .ffn = 80, .heads = 2, .kv_heads = 1});
  ExportOptions options;
  options.format = ExportFormat::kGguf;
  options.type = "Q4_0";
  const auto source = open_model(narrow.path());
  EXPECT_THAT(
      message_of<DoesNotFit>([&] { check_export(*source, {source->config(), {}}, options); }),
      HasSubstr("has 48 input features, and Q4_0 needs a multiple of 32"));
  options.type = "F16";
  EXPECT_NO_THROW(check_export(*source, {source->config(), {}}, options));
}

TEST_F(ExportPlans, RefuseAnActivationThatTheArchitectureHasNot) {
  const TemporaryFolder other;
  testing::write_tiny_model(other.path(), {.extra = {{"hidden_act", "gelu"}}});
  ExportOptions options;
  options.format = ExportFormat::kGguf;
  EXPECT_THAT(message_of<DoesNotFit>([&] {
                check_export(*open_model(other.path()), {open_model(other.path())->config(), {}},
                             options);
              }),
              HasSubstr("silu gates only"));
}

}  // namespace
}  // namespace attar
