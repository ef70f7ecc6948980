#include "compress/core/grid.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <tuple>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "quantize/rtn.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

at::Tensor row(std::initializer_list<float> values) {
  return at::tensor(at::ArrayRef<float>(values), at::kFloat).reshape({1, -1});
}

double squared_error(const at::Tensor& weight, const QuantizedWeight& quantized) {
  return (values_of(quantized) - weight).to(at::kDouble).square().sum().item<double>();
}

using Case = std::tuple<int, std::int64_t, ZeroPoint, bool>;

class RoundTrip : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { set_up_numerics(); }
  QuantScheme scheme() const {
    return scheme_of(std::get<0>(GetParam()), std::get<1>(GetParam()), std::get<2>(GetParam()));
  }
  GridOptions options() const { return {std::get<3>(GetParam()), false}; }
};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto [bits, group, zero_point, search] = info.param;
  const char* zeros[] = {"symmetric", "integer", "minimum"};
  return "int" + std::to_string(bits) + "_group" + std::to_string(group) + "_" +
         zeros[static_cast<int>(zero_point)] + (search ? "_searched" : "_range");
}

// A weight inside of its grid's range moves by at most half a step, one outside ends on the border;
// the slack is the float32 rounding of a division and a product with codes up to 255.
TEST_P(RoundTrip, MovesAWeightByAtMostHalfAStep) {
  const at::Tensor weight = normal(12, 192, 5);
  const Grid grid = choose_grid(weight, scheme(), options());
  const at::Tensor inside = clamp_to_grid(weight, grid);
  const at::Tensor values = values_of(quantize_to_grid(weight, grid));
  const std::int64_t group = scheme().group_size == 0 ? 192 : scheme().group_size;
  const at::Tensor steps = grid.scale.abs().repeat_interleave(group, 1);
  EXPECT_TRUE(((values - inside).abs() <= steps * 0.5001f).all().item<bool>());
}

TEST_P(RoundTrip, IsAFixedPointOfItself) {
  const at::Tensor weight = normal(12, 192, 6);
  const Grid grid = choose_grid(weight, scheme(), options());
  const QuantizedWeight once = quantize_to_grid(weight, grid);
  EXPECT_TRUE(quantize_to_grid(values_of(once), grid).codes.equal(once.codes));
}

TEST_P(RoundTrip, StoresWhatTheFileCanHold) {
  const at::Tensor weight = normal(12, 192, 7) * 0.01f;
  const QuantizedWeight quantized = rtn_quantize(weight, scheme(), options()).weight;
  EXPECT_NO_THROW(check(quantized, "test"));
  const at::Tensor half = quantized.scale.to(at::kHalf).to(at::kFloat);
  EXPECT_TRUE(half.equal(quantized.scale));
  EXPECT_TRUE(quantized.scale.ne(0).all().item<bool>());
  EXPECT_LE(quantized.codes.max().item<std::int64_t>(), scheme().levels() - 1);
  if (scheme().zero_point == ZeroPoint::kInteger) {
    EXPECT_TRUE(quantized.zero.equal(quantized.zero.round()));
    EXPECT_TRUE(quantized.zero.ge(0)
                    .logical_and(quantized.zero.le(scheme().levels() - 1))
                    .all()
                    .item<bool>());
  }
  EXPECT_TRUE(dense(quantized).equal(values_of(quantized)));
}

INSTANTIATE_TEST_SUITE_P(Schemes, RoundTrip,
                         testing::Combine(testing::Values(2, 3, 4, 8), testing::Values(0, 32, 64),
                                          testing::Values(ZeroPoint::kSymmetric,
                                                          ZeroPoint::kInteger, ZeroPoint::kMinimum),
                                          testing::Bool()),
                         case_name);

// scale = 30 / 15 = 2, zero = rne(10 / 2) = 5; 3 / 2 is a tie and goes to 2, -1 / 2 to 0.
TEST(Grid, MatchesAHandWorkedAsymmetricRow) {
  const QuantizedWeight q = rtn_quantize(row({-10, 20, 3, -1, 5, 0}), scheme_of(4, 0)).weight;
  EXPECT_EQ(q.scale.item<float>(), 2.0f);
  EXPECT_EQ(q.zero.item<float>(), 5.0f);
  EXPECT_TRUE(q.codes.equal(at::tensor({0, 15, 7, 5, 7, 5}, at::kByte).reshape({1, 6})));
}

// scale = 2 * 7.5 / 15 = 1, zero 8: all-positive groups are mirrored too, and 7.5 cuts to 7.
TEST(Grid, MirrorsASymmetricRangeEvenWithoutNegativeWeights) {
  const QuantizedWeight q =
      rtn_quantize(row({7.5, 1, 2, 0}), scheme_of(4, 0, ZeroPoint::kSymmetric)).weight;
  EXPECT_EQ(q.scale.item<float>(), 1.0f);
  EXPECT_TRUE(q.codes.equal(at::tensor({15, 9, 10, 8}, at::kByte).reshape({1, 4})));
}

// The largest magnitude, +8, lies on the code 0 = -8: scale -1.
TEST(Grid, PutsTheLargestWeightOnTheLongEndOfAFullRange) {
  const QuantizedWeight q =
      rtn_quantize(row({8, -3, 1, 0}), scheme_of(4, 0, ZeroPoint::kSymmetric), {false, true})
          .weight;
  EXPECT_EQ(q.scale.item<float>(), -1.0f);
  EXPECT_TRUE(values_of(q).equal(row({8, -3, 1, 0})));
}

TEST(Grid, KeepsZeroConstantAndOneSidedGroups) {
  for (const ZeroPoint zero_point :
       {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    for (const bool search : {false, true}) {
      const QuantScheme scheme = scheme_of(4, 0, zero_point);
      const at::Tensor zeros = at::zeros({2, 32}, at::kFloat);
      EXPECT_TRUE(values_of(rtn_quantize(zeros, scheme, {search, false}).weight).equal(zeros));
      const at::Tensor constant = at::full({1, 32}, 0.75f);
      EXPECT_LE(rtn_quantize(constant, scheme, {search, false}).relative_error, 1e-2);
      const at::Tensor positive = normal(1, 64, 3).abs() + 0.1f;
      EXPECT_LE(rtn_quantize(positive, scheme, {search, false}).relative_error, 0.02);
    }
  }
}

// A step of 1e-9 is below every float16: the smallest float16 serves.
TEST(Grid, FindsAScaleForTinyAndHugeWeights) {
  for (const float size : {1e-9f, 1e-4f, 1e5f}) {
    const QuantizedWeight q = rtn_quantize(normal(2, 64, 9) * size, scheme_of(4, 32)).weight;
    EXPECT_TRUE(q.scale.isfinite().all().item<bool>());
    EXPECT_TRUE(q.scale.to(at::kHalf).to(at::kFloat).equal(q.scale));
    EXPECT_TRUE(q.scale.ne(0).all().item<bool>());
  }
}

TEST(Grid, SearchNeverLosesToTheRangeAndGainsAtFewBits) {
  const at::Tensor weight = normal(40, 256, 11);
  const at::Tensor prices = normal(1, 256, 12).to(at::kDouble).reshape({256}).square() + 0.01;
  const auto loss = [&](const QuantizedWeight& q) {
    return ((values_of(q) - weight).to(at::kDouble).square() * prices).sum().item<double>();
  };
  for (const ZeroPoint zero_point :
       {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    for (const int bits : {2, 3, 4, 8}) {
      const QuantScheme scheme = scheme_of(bits, 64, zero_point);
      const double range = loss(rtn_quantize(weight, scheme).weight);
      const double searched = loss(rtn_quantize(weight, scheme, {true, false}, prices).weight);
      EXPECT_LE(searched, range * 1.0001) << bits;
      if (bits <= 3) {
        EXPECT_LT(searched, 0.85 * range) << bits;
      }
    }
  }
}

// Every scale of a fine ladder with every zero: what the search may miss is small.
TEST(Grid, SearchComesNearAnExhaustiveOne) {
  const at::Tensor weight = normal(6, 32, 21);
  const QuantScheme scheme = scheme_of(3, 0, ZeroPoint::kInteger, at::kFloat);
  const double found = squared_error(weight, rtn_quantize(weight, scheme, {true, false}).weight);
  double best_total = 0;
  for (std::int64_t r = 0; r < 6; ++r) {
    const at::Tensor one = weight.narrow(0, r, 1);
    double best = std::numeric_limits<double>::infinity();
    for (int i = 1; i <= 400; ++i) {
      for (int zero = 0; zero < 8; ++zero) {
        const Grid grid{scheme, at::full({1, 1}, 0.0025f * static_cast<float>(i)),
                        at::full({1, 1}, static_cast<float>(zero))};
        best = std::min(best, squared_error(one, quantize_to_grid(one, grid)));
      }
    }
    best_total += best;
  }
  EXPECT_LE(found, 1.01 * best_total);
}

TEST(Grid, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  const at::Tensor weight = normal(50, 128, 31);
  set_threads(1);
  const QuantizedWeight one = rtn_quantize(weight, scheme_of(4, 64), {true, false}).weight;
  set_threads(2);
  const QuantizedWeight two = rtn_quantize(weight, scheme_of(4, 64), {true, false}).weight;
  set_threads(before);
  EXPECT_TRUE(same_weight(one, two));
}

TEST(Grid, RefusesWhatNoFormatHolds) {
  const at::Tensor weight = normal(2, 96, 1);
  EXPECT_THROW(choose_grid(weight, scheme_of(1, 0)), UsageError);
  EXPECT_THROW(choose_grid(weight, scheme_of(9, 0)), UsageError);
  EXPECT_THROW(choose_grid(weight, scheme_of(4, -1)), UsageError);
  try {
    choose_grid(weight, scheme_of(4, 64));
    FAIL() << "a group of 64 in 96 columns must be refused";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("group_size must divide the input features, got "
                                                 "group_size=64, input features=96"));
  }
}

TEST(Grid, NamesThePlaceOfANaN) {
  at::Tensor weight = normal(3, 64, 1);
  weight.select(0, 2).select(0, 7).fill_(std::numeric_limits<float>::quiet_NaN());
  try {
    choose_grid(weight, scheme_of(4, 64));
    FAIL() << "a NaN must be refused";
  } catch (const NumericRefusal& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("row 2, column 7"));
  }
}

// More values than one piece holds, and a last piece of its own.
TEST(PlainRounding, ByPiecesIsThatOfTheWhole) {
  const at::Tensor values = normal(300, 4096, 3).to(at::kHalf);
  for (const ZeroPoint zero_point : {ZeroPoint::kSymmetric, ZeroPoint::kInteger}) {
    const QuantScheme scheme = scheme_of(4, 64, zero_point);
    const RtnResult whole = rtn_quantize(values.to(at::kFloat), scheme);
    const RtnResult pieces = rtn_quantize_weight(DenseWeight{values}, scheme);
    EXPECT_TRUE(same_weight(pieces.weight, whole.weight));
    EXPECT_NEAR(pieces.relative_error, whole.relative_error, 1e-12);
  }
}

}  // namespace
}  // namespace attar
