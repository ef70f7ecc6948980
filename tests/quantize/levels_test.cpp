// Weights on number formats: FP8, MXFP4, NF4.
#include "compress/core/levels.h"

#include <ATen/ops/cat.h>
#include <c10/util/Float8_e4m3fn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "quantize/gptq.h"
#include "quantize/rtn.h"
#include "quantize/scheme_rules.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

const BlockGrid kFormats[] = {BlockGrid::kFp8, BlockGrid::kMxfp4, BlockGrid::kNf4};

at::Tensor row_of(const std::vector<float>& values) {
  at::Tensor row = at::arange(static_cast<std::int64_t>(values.size()), at::kFloat);
  std::copy(values.begin(), values.end(), row.data_ptr<float>());
  return row.unsqueeze(0);
}

int nearest(BlockGrid grid, float x) { return levels_of(grid)->nearest(x); }

// From the bits: 1 is 0 0111 000, 448 is 0 1111 110, the smallest 2^-9. Halves: 17 lies between 16
// (0x58) and 18, 19 between 18 and 20 (0x5a).
TEST(Levels, OfFp8AreItsBytes) {
  constexpr auto kGrid = BlockGrid::kFp8;
  EXPECT_EQ(nearest(kGrid, 1), 0x38);
  EXPECT_EQ(nearest(kGrid, -1), 0xb8);
  EXPECT_EQ(nearest(kGrid, 448), 0x7e);
  EXPECT_EQ(nearest(kGrid, 1e9f), 0x7e);
  EXPECT_EQ(nearest(kGrid, -1e9f), 0xfe);
  EXPECT_EQ(nearest(kGrid, 0.001953125f), 0x01);
  EXPECT_EQ(nearest(kGrid, -0.0009765625f), 0x00);  // a half of it; and no -0
  EXPECT_EQ(nearest(kGrid, 17), 0x58);
  EXPECT_EQ(nearest(kGrid, 19), 0x5a);
}

TEST(Levels, OfFp8RoundAsLibTorchDoes) {
  const at::Tensor values = normal(1, 20000, 4) * 60;
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    const float x = values.data_ptr<float>()[i] * std::ldexp(1.0f, -static_cast<int>(i % 20));
    const c10::Float8_e4m3fn theirs(std::clamp(x, -448.0f, 448.0f));
    const int expected = theirs.x == 0x80 ? 0 : theirs.x;
    ASSERT_EQ(nearest(BlockGrid::kFp8, x), expected) << x;
  }
}

// Magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6 by code; a half goes to the even code.
TEST(Levels, OfMxfp4AreItsNibbles) {
  constexpr auto kGrid = BlockGrid::kMxfp4;
  const std::pair<float, int> cases[] = {{0.25f, 0}, {0.26f, 1}, {0.75f, 2}, {1.25f, 2}, {1.75f, 4},
                                         {2.5f, 4},  {3.5f, 6},  {5, 6},     {5.1f, 7},  {100, 7}};
  for (const auto& [x, code] : cases) {
    EXPECT_EQ(nearest(kGrid, x), code) << x;
    EXPECT_EQ(nearest(kGrid, -x), code == 0 ? 0 : code + 8) << -x;
  }
}

// Largest 12: 2^(3 - 2) = 2. 5 = 2 * 2.5 is a half: 2, not 3. The second group has the scale 1/8.
TEST(Mxfp4, MatchesAHandWorkedRow) {
  std::vector<float> values(64, 0.0f);
  values[0] = 12, values[1] = -5, values[2] = 1, values[3] = -0.4f, values[63] = 0.75f;
  const QuantizedWeight found =
      rtn_quantize(row_of(values), block_scheme(BlockGrid::kMxfp4)).weight;
  EXPECT_EQ(found.scale[0][0].item<float>(), 2);
  EXPECT_EQ(found.scale[0][1].item<float>(), 0.125f);
  const int expected[] = {7, 12, 1, 0};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(found.codes[0][i].item<int>(), expected[i]) << i;
  EXPECT_EQ(found.codes[0][63].item<int>(), 7);
  EXPECT_EQ(values_of(found)[0][1].item<float>(), -4);
}

// The largest magnitude 2 is level 1 of a scale of 2: -2 is code 0, 1 = 2 * .5 lies nearer to
// .4407 (12) than to .5626, 0.1 = 2 * .05 nearer to .0796 (8) than to 0.
TEST(Nf4, MatchesAHandWorkedRow) {
  std::vector<float> values(64, 0.0f);
  values[0] = -2, values[1] = 1, values[2] = 0.1f;
  const QuantizedWeight found = rtn_quantize(row_of(values), block_scheme(BlockGrid::kNf4)).weight;
  EXPECT_EQ(found.scale[0][0].item<float>(), 2);
  const int expected[] = {0, 12, 8, 7};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(found.codes[0][i].item<int>(), expected[i]) << i;
  EXPECT_FLOAT_EQ(values_of(found)[0][1].item<float>(), 2 * 0.44070983f);
}

// Two rows of one magnitude apart: each row's largest lies on 448.
TEST(Fp8, HasAScaleARow) {
  const at::Tensor weight = at::cat({row_of({896, -2, 1, 0}), row_of({-4480, 10, 0, 0})});
  const QuantizedWeight found = rtn_quantize(weight, block_scheme(BlockGrid::kFp8)).weight;
  EXPECT_EQ(found.scale[0][0].item<float>(), 2);
  EXPECT_EQ(found.scale[1][0].item<float>(), 10);
  const int expected[2][4] = {{0x7e, 0xb8, 0x30, 0}, {0xfe, 0x38, 0, 0}};
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(found.codes[i / 4][i % 4].item<int>(), expected[i / 4][i % 4]) << i;
  }
  EXPECT_TRUE(values_of(found).equal(weight));
}

class NumberFormats : public testing::TestWithParam<BlockGrid> {
 protected:
  void SetUp() override { set_up_numerics(); }
  const QuantScheme scheme_ = block_scheme(GetParam());
  const Levels& levels_ = *levels_of(GetParam());
  const at::Tensor weight_ = normal(16, 256, 2) * 0.02;
  const at::Tensor hessian_ = correlated_hessian(256, 40);
};

// Against every level in turn; a quotient of float32 may turn a tie, by an epsilon of the weight.
TEST_P(NumberFormats, RoundToNoLevelFartherThanAnother) {
  const QuantizedWeight found = rtn_quantize(weight_, scheme_).weight;
  const at::Tensor values = values_of(found);
  const std::int64_t group = 256 / found.scale.size(1);
  for (std::int64_t r = 0; r < 16; ++r) {
    for (std::int64_t j = 0; j < 256; ++j) {
      const float w = weight_[r][j].item<float>(), scale = found.scale[r][j / group].item<float>();
      const float distance = std::abs(values[r][j].item<float>() - w);
      for (int code = 0; code < scheme_.levels(); ++code) {
        const float level = levels_.value(static_cast<std::uint8_t>(code));
        if (std::isnan(level)) continue;
        ASSERT_LE(distance, std::abs(scale * level - w) + 2.4e-7f * std::abs(w)) << code;
      }
    }
  }
}

TEST_P(NumberFormats, OfTheirOwnValuesAreExact) {
  const QuantizedWeight found = rtn_quantize(weight_, scheme_).weight;
  const at::Tensor values = values_of(found);
  EXPECT_TRUE(values.equal(dense(Weight(found))));
  const Grid grid{found.scheme, found.scale, {}};
  EXPECT_TRUE(quantize_to_grid(values, grid).codes.equal(found.codes));
  EXPECT_TRUE(clamp_to_grid(values, grid).equal(values));
  check(found, "test");
}

TEST_P(NumberFormats, AreChosenBetterBySearchAndByGptq) {
  const at::Tensor cost = hessian_.diagonal().contiguous();
  const auto error = [&](bool search) {
    const Grid grid = choose_grid(weight_, scheme_, {.search = search}, cost);
    const at::Tensor off = values_of(quantize_to_grid(weight_, grid)).to(at::kDouble) - weight_;
    return (off * off * cost).sum().item<double>();
  };
  EXPECT_LT(error(true), 0.99 * error(false));
  const GptqResult result = gptq_quantize(weight_, hessian_, scheme_);
  EXPECT_LT(result.loss, 0.6 * result.rtn_loss);
  EXPECT_LT(result.identity_gap, 1e-3);
}

TEST_P(NumberFormats, KeepZerosOfAMask) {
  GptqOptions options;
  options.keep = weight_ > 0;
  const at::Tensor values =
      values_of(gptq_quantize(weight_ * options.keep, hessian_, scheme_, options).weight);
  EXPECT_EQ(values.masked_select(options.keep.logical_not()).abs().max().item<float>(), 0);
  EXPECT_GT(values.abs().max().item<float>(), 0);
}

TEST_P(NumberFormats, OfZeroConstantTinyAndHugeRowsAreFinite) {
  at::Tensor rows = normal(4, 128, 3);
  rows.select(0, 0).zero_();
  rows.select(0, 1).fill_(0.7);
  rows.select(0, 2).mul_(1e-38);
  rows.select(0, 3).mul_(1e37);
  for (const bool search : {false, true}) {
    if (GetParam() == BlockGrid::kNf4) rows.select(0, 3).clamp_(-6e4, 6e4);  // float16 scales
    const QuantizedWeight found =
        quantize_to_grid(rows, choose_grid(rows, scheme_, {.search = search}));
    const at::Tensor values = values_of(found);
    EXPECT_TRUE(values.isfinite().all().item<bool>());
    EXPECT_EQ(values[0].abs().max().item<float>(), 0);
    EXPECT_LT((values[1] - rows[1]).abs().max().item<float>(), 0.11);
    check(found, "test");
  }
}

TEST_P(NumberFormats, AreTheSameForOneThreadAndTwo) {
  const int before = threads();
  const auto chosen = [&](int count) {
    set_threads(count);
    return gptq_quantize(weight_, hessian_, scheme_).weight;
  };
  EXPECT_TRUE(same_weight(chosen(1), chosen(2)));
  set_threads(before);
}

TEST_P(NumberFormats, RefuseRefits) {
  GptqOptions options;
  options.refits = 1;
  EXPECT_THROW(gptq_quantize(weight_, hessian_, scheme_, options), UsageError);
}

INSTANTIATE_TEST_SUITE_P(All, NumberFormats, testing::ValuesIn(kFormats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST(NumberFormat, TakesSoManyBitsAWeight) {
  EXPECT_DOUBLE_EQ(block_scheme(BlockGrid::kFp8).bits_per_weight(64), 8.5);
  EXPECT_DOUBLE_EQ(block_scheme(BlockGrid::kMxfp4).bits_per_weight(64), 4.25);
  EXPECT_DOUBLE_EQ(block_scheme(BlockGrid::kNf4).bits_per_weight(64), 4.25);
}

TEST(NumberFormat, RefusesRowsThatItsGroupsDoNotDivideAndCodesThatAreNoNumbers) {
  const auto message = [&](BlockGrid grid) {
    try {
      rtn_quantize(normal(2, 48, 1), block_scheme(grid));
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message(BlockGrid::kMxfp4).find("multiples of 32, got 48"), std::string::npos);
  EXPECT_NE(message(BlockGrid::kNf4).find("multiples of 64, got 48"), std::string::npos);
  EXPECT_EQ(message(BlockGrid::kFp8), "");
  QuantizedWeight broken = rtn_quantize(normal(2, 48, 1), block_scheme(BlockGrid::kFp8)).weight;
  broken.codes[1][3] = 0x7f;
  EXPECT_THROW(check(broken, "test"), BadInput);
}

TEST(SchemeRulesOfANumberFormat, NameTheLayerThatDoesNotFitAndTheWayOut) {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 64;
  config.ffn = 172;
  config.heads = 4;
  config.kv_heads = 4;
  config.head_dim = 16;
  SchemeConfig options;
  options.type = "MXFP4";
  const auto message = [&] {
    try {
      SchemeRules(options, "test").plan(config, "rtn");
    } catch (const DoesNotFit& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message().find("MXFP4 needs input features in multiples of 32, got 172"),
            std::string::npos)
      << message();
  options.rules = nlohmann::json::array({{{"layers", "down"}, {"type", "FP8"}}});
  const auto planned = SchemeRules(options, "test").plan(config, "rtn");
  EXPECT_EQ(planned[0].scheme->block, BlockGrid::kMxfp4);
  EXPECT_EQ(planned[index_of(Role::kDown)].scheme->block, BlockGrid::kFp8);
  EXPECT_EQ(planned[0].action, "rtn MXFP4");
  EXPECT_TRUE(planned[0].keeps_zeros);
  options.activations = 8;
  EXPECT_THROW(SchemeRules(options, "test"), UsageError);
  options.type = "FP8";
  const auto dynamic = SchemeRules(options, "test").plan(config, "rtn");
  EXPECT_EQ(dynamic[0].action, "rtn FP8 A8");
  EXPECT_EQ(dynamic[0].scheme->token_grid(), kernels::TokenGrid::e4m3);
  options.rules = nlohmann::json::array({{{"layers", "gate"}, {"bits", 8}, {"group_size", 0}}});
  EXPECT_THROW(SchemeRules(options, "test").plan(config, "rtn"), DoesNotFit);  // gate and up
}

}  // namespace
}  // namespace attar
