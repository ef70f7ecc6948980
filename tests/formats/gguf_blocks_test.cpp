#include "compress/formats/gguf_blocks.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "tests/formats/round_to_nearest.h"
#include "tests/formats/tiny_model.h"

namespace attar {
namespace {

using io::GgmlType;
using testing::random_values;
using testing::round_to_nearest;

struct Case {
  GgmlType type;
  int bits;
  std::int64_t group;
  ZeroPoint zero_point;
  bool exact;
};

constexpr GgmlType kBlockTypes[] = {GgmlType::q8_0,   GgmlType::q4_0, GgmlType::q4_1,
                                    GgmlType::q5_0,   GgmlType::q5_1, GgmlType::iq4_nl,
                                    GgmlType::iq4_xs, GgmlType::q2_k, GgmlType::q3_k,
                                    GgmlType::q4_k,   GgmlType::q5_k, GgmlType::q6_k};

class KeptCodes : public ::testing::TestWithParam<Case> {};

// Exact: the same values. Rounded minima: m = -scale * zero is off by at most half a unit in the
// last place of float16 (2^-11 relative), and nothing else is.
TEST_P(KeptCodes, GiveTheSameValues) {
  const Case c = GetParam();
  const QuantScheme scheme{c.bits, c.group, c.zero_point, at::kHalf};
  const QuantizedWeight weight = round_to_nearest(random_values({48, 96}, 7), scheme);
  const std::optional<Fit> promised = fit(c.type, scheme, 96);
  ASSERT_TRUE(promised.has_value());
  EXPECT_EQ(*promised == Fit::kExact, c.exact);
  const auto bytes = keep_codes(c.type, weight);
  ASSERT_TRUE(bytes.has_value());
  const at::Tensor got = decode(c.type, *bytes, 48, 96), expected = dense(weight);
  if (c.exact) {
    EXPECT_TRUE(at::equal(got, expected));
  } else {
    const float largest_minimum = (weight.scale * weight.zero).abs().max().item<float>();
    EXPECT_LE((got - expected).abs().max().item<float>(), largest_minimum / 2048 * 1.001F);
    EXPECT_GT((got - expected).abs().max().item<float>(), 0);
  }
}
INSTANTIATE_TEST_SUITE_P(Types, KeptCodes,
                         ::testing::Values(Case{GgmlType::q4_0, 4, 32, ZeroPoint::kSymmetric, true},
                                           Case{GgmlType::q4_0, 3, 96, ZeroPoint::kSymmetric, true},
                                           Case{GgmlType::q4_0, 2, 0, ZeroPoint::kSymmetric, true},
                                           Case{GgmlType::q4_1, 4, 32, ZeroPoint::kMinimum, true},
                                           Case{GgmlType::q4_1, 3, 32, ZeroPoint::kMinimum, true},
                                           Case{GgmlType::q4_1, 4, 96, ZeroPoint::kInteger, false},
                                           Case{GgmlType::q5_0, 5, 32, ZeroPoint::kSymmetric, true},
                                           Case{GgmlType::q5_0, 4, 96, ZeroPoint::kSymmetric, true},
                                           Case{GgmlType::q5_1, 5, 32, ZeroPoint::kMinimum, true},
                                           Case{GgmlType::q5_1, 5, 96, ZeroPoint::kInteger, false},
                                           Case{GgmlType::q8_0, 8, 32, ZeroPoint::kSymmetric, true},
                                           Case{GgmlType::q8_0, 4, 0, ZeroPoint::kInteger, true},
                                           Case{GgmlType::q8_0, 7, 32, ZeroPoint::kInteger, true},
                                           Case{GgmlType::q8_0, 5, 32, ZeroPoint::kSymmetric,
                                                true}),
                         [](const auto& info) {
                           return std::string(io::ggml_type_info(info.param.type).name) + "_int" +
                                  std::to_string(info.param.bits) + "_group" +
                                  std::to_string(info.param.group) + "_" +
                                  std::string(to_string(info.param.zero_point));
                         });

TEST(GgufBlocks, DoNotFitWhatTheyCannotHold) {
  const auto fits = [](GgmlType type, QuantScheme scheme) {
    return fit(type, scheme, 192).has_value();
  };
  EXPECT_FALSE(fits(GgmlType::q4_0, {4, 48, ZeroPoint::kSymmetric, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q4_0, {4, 16, ZeroPoint::kSymmetric, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q4_0, {5, 32, ZeroPoint::kSymmetric, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q4_0, {4, 32, ZeroPoint::kInteger, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q5_0, {6, 32, ZeroPoint::kSymmetric, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::iq4_nl, {8, 32, ZeroPoint::kSymmetric, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q4_1, {5, 32, ZeroPoint::kMinimum, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q8_0, {8, 32, ZeroPoint::kInteger, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q8_0, {4, 32, ZeroPoint::kMinimum, at::kHalf}));
  EXPECT_FALSE(fits(GgmlType::q8_0, {8, 32, ZeroPoint::kSymmetric, at::kBFloat16}));
  EXPECT_FALSE(fit(GgmlType::q8_0, {8, 0, ZeroPoint::kSymmetric, at::kHalf}, 48).has_value());
}

TEST(GgufBlocks, ChooseTheSmallestTypeThatFits) {
  const auto smallest = [](QuantScheme scheme) { return smallest_fit(scheme, 192); };
  EXPECT_EQ(smallest({4, 64, ZeroPoint::kSymmetric, at::kHalf}), GgmlType::q4_0);
  EXPECT_EQ(smallest({4, 64, ZeroPoint::kInteger, at::kHalf}), GgmlType::q4_1);
  EXPECT_EQ(smallest({5, 64, ZeroPoint::kSymmetric, at::kHalf}), GgmlType::q5_0);
  EXPECT_EQ(smallest({5, 64, ZeroPoint::kInteger, at::kHalf}), GgmlType::q5_1);
  EXPECT_EQ(smallest({6, 64, ZeroPoint::kInteger, at::kHalf}), GgmlType::q8_0);
  EXPECT_EQ(smallest(block_scheme(BlockGrid::kIq4Nl)), GgmlType::iq4_nl);
  EXPECT_EQ(smallest(block_scheme(BlockGrid::kQ4K)), std::nullopt);  // 192 is not 256
  EXPECT_EQ(smallest_fit(block_scheme(BlockGrid::kQ4K), 512), GgmlType::q4_k);
  EXPECT_EQ(smallest({8, 0, ZeroPoint::kSymmetric, at::kHalf}), GgmlType::q8_0);
  EXPECT_EQ(smallest({8, 0, ZeroPoint::kInteger, at::kHalf}), std::nullopt);
}

TEST(GgufBlocks, AreNotKeptWhenAScaleIsBeyondFloat16) {
  QuantizedWeight weight =
      round_to_nearest(random_values({4, 32}, 1), {4, 32, ZeroPoint::kSymmetric, at::kHalf});
  weight.scale[2][0] = 1e-3F;  // not representable
  EXPECT_FALSE(keep_codes(GgmlType::q4_0, weight).has_value());
  weight.scale[2][0] = 1e6F;
  EXPECT_FALSE(keep_codes(GgmlType::q4_0, weight).has_value());
}

TEST(GgufBlocks, OfTheReferenceQuantizerComeBackWithTheirOwnCodes) {
  for (const GgmlType type : kBlockTypes) {
    const std::vector<std::byte> bytes = encode(type, random_values({24, 512}, 5));
    const QuantizedWeight weight = unpack_blocks(type, bytes, 24, 512);
    EXPECT_NO_THROW(check(weight, "test"));
    EXPECT_TRUE(at::equal(dense(weight), decode(type, bytes, 24, 512)));
    const auto kept = keep_codes(type, weight);
    ASSERT_TRUE(kept.has_value()) << io::ggml_type_info(type).name;
    EXPECT_TRUE(at::equal(decode(type, *kept, 24, 512), dense(weight)));
    // d and the small numbers of a super-block need not be those: 2 d with a / 2 is the same grid.
    EXPECT_TRUE(io::ggml_type_info(type).name.ends_with("K") || kept == bytes);
  }
}

const BlockGrid kBlockGrids[] = {BlockGrid::kQ2K,  BlockGrid::kQ3K, BlockGrid::kQ4K,
                                 BlockGrid::kQ5K,  BlockGrid::kQ6K, BlockGrid::kIq4Nl,
                                 BlockGrid::kIq4Xs};

double weighted_error(const at::Tensor& found, const at::Tensor& values, const at::Tensor& cost) {
  return ((found - values).square().to(at::kDouble) * cost).sum().item<double>();
}

// The same scales by two ways; IQ4 codes may differ where ggml rounds before d does.
TEST(GgufBlocks, PlainRoundingOnABlockGridGivesTheReferenceQuantizersValues) {
  const at::Tensor values = random_values({20, 512}, 11) * 0.02F;
  for (const BlockGrid block : kBlockGrids) {
    const GgmlType type = io::find_ggml_type(to_string(block))->type;
    const Grid grid = choose_grid(values, block_scheme(block));
    const at::Tensor found = dense(quantize_to_grid(values, grid));
    const at::Tensor reference = decode(type, encode(type, values), 20, 512);
    if (block_scheme(block).table()) {
      const at::Tensor one = at::ones({512}, at::kDouble);
      EXPECT_LE(weighted_error(found, values, one), weighted_error(reference, values, one));
    } else {
      EXPECT_TRUE(at::equal(found, reference)) << to_string(block);
    }
  }
}

TEST(GgufBlocks, ASearchedBlockGridIsKeptAndCloserUnderItsWeights) {
  const at::Tensor values = random_values({40, 512}, 12) * 0.02F;
  const at::Tensor cost = random_values({512}, 13).to(at::kDouble).square() + 0.01;
  for (const BlockGrid block : kBlockGrids) {
    const GgmlType type = io::find_ggml_type(to_string(block))->type;
    const auto found = [&](bool search) {
      return quantize_to_grid(values,
                              choose_grid(values, block_scheme(block), {.search = search}, cost));
    };
    const QuantizedWeight searched = found(true);
    EXPECT_LT(weighted_error(dense(searched), values, cost),
              weighted_error(dense(found(false)), values, cost) * 0.97)
        << to_string(block);
    const auto bytes = keep_codes(type, searched);
    ASSERT_TRUE(bytes.has_value()) << to_string(block);
    EXPECT_TRUE(at::equal(decode(type, *bytes, 40, 512), dense(searched))) << to_string(block);
  }
}

TEST(GgufBlocks, ScalesThatAreNoCodesOfASuperBlockAreNotKept) {
  const at::Tensor values = random_values({4, 256}, 1);
  QuantizedWeight weight =
      quantize_to_grid(values, choose_grid(values, block_scheme(BlockGrid::kQ4K)));
  EXPECT_TRUE(keep_codes(GgmlType::q4_k, weight).has_value());
  weight.scale[3][5] = weight.scale[3][5] * 1.01F;
  EXPECT_FALSE(keep_codes(GgmlType::q4_k, weight).has_value());
  EXPECT_FALSE(keep_codes(GgmlType::q5_k, weight).has_value());
}

TEST(GgufBlocks, RoundPlainTypesAsATensorDoes) {
  const at::Tensor values = random_values({8, 40}, 5) * 1.001F;
  EXPECT_TRUE(at::equal(decode(GgmlType::f16, encode(GgmlType::f16, values), 8, 40),
                        values.to(at::kHalf).to(at::kFloat)));
  EXPECT_TRUE(at::equal(decode(GgmlType::bf16, encode(GgmlType::bf16, values), 8, 40),
                        values.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_TRUE(at::equal(decode(GgmlType::f32, encode(GgmlType::f32, values), 8, 40), values));
  EXPECT_THROW(encode(GgmlType::q4_0, values), BadInput);
}

}  // namespace
}  // namespace attar
