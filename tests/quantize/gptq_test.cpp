#include "quantize/gptq.h"

#include <ATen/ops/diag.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/linalg/quadratic_loss.h"
#include "quantize/gptq_refine.h"
#include "quantize/rtn.h"
#include "quantize/scheme_rules.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

GptqOptions plain() {  // the sweep alone
  GptqOptions options;
  options.refits = options.descents = 0;
  return options;
}

double double_loss(const at::Tensor& weight, const QuantizedWeight& quantized,
                   const at::Tensor& hessian) {
  const at::Tensor change = (values_of(quantized) - weight).to(at::kDouble);
  return (change.mm(hessian) * change).sum().item<double>();
}

class Gptq : public testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }
  const at::Tensor weight_ = normal(24, 128, 2);
  const at::Tensor hessian_ = correlated_hessian(128, 40);
};

// Nothing can be moved onto other columns, so nothing is.
TEST_F(Gptq, EqualsPlainRoundingWhenInputsAreUncorrelated) {
  const at::Tensor diagonal = at::diag(hessian_.diagonal().clone());
  GptqOptions options;
  options.search = false;
  for (const ZeroPoint zero_point :
       {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    for (const bool act_order : {true, false}) {
      options.act_order = options.static_groups = act_order;
      options.refits = options.descents = 0;
      const QuantScheme scheme = scheme_of(4, 32, zero_point);
      EXPECT_TRUE(same_weight(gptq_quantize(weight_, diagonal, scheme, options).weight,
                              rtn_quantize(weight_, scheme).weight));
    }
  }
}

TEST_F(Gptq, BeatsPlainRoundingOnCorrelatedInputs) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const ZeroPoint zero_point :
         {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
      const GptqResult result = gptq_quantize(weight_, hessian_, scheme_of(bits, 64, zero_point));
      EXPECT_LT(result.loss, 0.7 * result.rtn_loss) << bits << to_string(zero_point);
      EXPECT_NO_THROW(check(result.weight, "gptq"));
      EXPECT_NEAR(result.loss,
                  double_loss(weight_, result.weight, hessian_) /
                      weight_.to(at::kDouble).mm(hessian_).mul(weight_).sum().item<double>(),
                  1e-3 * result.loss);
    }
  }
}

// tr(D H D^T) with damped H is the sum of the squared errors that the sweep divided by U_ii.
TEST_F(Gptq, TheSweepsOwnLossIsTheTraceOfTheErrors) {
  EXPECT_LT(gptq_quantize(weight_, hessian_, scheme_of(4, 64), plain()).identity_gap, 1e-4);
  GptqOptions natural = plain();
  natural.act_order = natural.static_groups = false;
  EXPECT_LT(gptq_quantize(weight_, hessian_, scheme_of(4, 64), natural).identity_gap, 1e-4);
}

// Blocks change the order of additions only; a weight within 1e-5 of a tie may turn.
TEST_F(Gptq, DoesNotDependOnTheBlockSize) {
  for (const bool act_order : {true, false}) {
    GptqOptions options = plain();
    options.act_order = act_order;
    options.static_groups = act_order;
    options.block_size = 128;
    const GptqResult whole = gptq_quantize(weight_, hessian_, scheme_of(4, 32), options);
    for (const int block : {1, 5, 32, 48}) {
      options.block_size = block;
      const GptqResult blocked = gptq_quantize(weight_, hessian_, scheme_of(4, 32), options);
      const auto turned = blocked.weight.codes.ne(whole.weight.codes).sum().item<std::int64_t>();
      EXPECT_LE(turned, 3) << "block " << block;
    }
  }
}

// A slow sweep in double on a given grid, column after column.
at::Tensor reference_values(const at::Tensor& weight, const at::Tensor& hessian, double damping,
                            const Grid& grid) {
  const std::int64_t n = weight.size(1);
  const double damp = damping * hessian.diagonal().mean().item<double>();
  at::Tensor inverse = (hessian + at::eye(n, at::kDouble) * damp).inverse();
  at::Tensor w = weight.to(at::kDouble).clone();
  at::Tensor values = w.clone();
  for (std::int64_t i = 0; i < n; ++i) {
    at::Tensor rounded = w.to(at::kFloat).contiguous();
    const at::Tensor column =
        values_of(quantize_to_grid(rounded, grid)).select(1, i).to(at::kDouble);
    values.select(1, i).copy_(column);
    const at::Tensor error = (w.select(1, i) - column) / inverse.select(0, i).select(0, i);
    w -= error.outer(inverse.select(0, i));
    inverse = inverse -
              inverse.select(1, i).outer(inverse.select(0, i)) / inverse.select(0, i).select(0, i);
    inverse.select(0, i).zero_();
    inverse.select(1, i).zero_();
    inverse.select(0, i).select(0, i).fill_(1.0);  // never read again
  }
  return values;
}

TEST_F(Gptq, AgreesWithASlowSweepInDouble) {
  GptqOptions options = plain();
  options.act_order = false;
  options.search = false;
  const QuantScheme scheme = scheme_of(4, 32);
  const GptqResult fast = gptq_quantize(weight_, hessian_, scheme, options);
  const at::Tensor slow =
      reference_values(weight_, hessian_, options.damping, choose_grid(weight_, scheme));
  const at::Tensor same = (values_of(fast.weight).to(at::kDouble) - slow).abs().lt(1e-6);
  EXPECT_GE(same.to(at::kDouble).mean().item<double>(), 0.998);
}

// All 4^5 codes of a row: GPTQ with descent is never below the best, and within 30 % of it on sum.
TEST_F(Gptq, ComesNearTheBestOfAllCodesOnTinyRows) {
  const std::int64_t n = 5;
  const QuantScheme scheme = scheme_of(2, 0);
  double best_sum = 0, found_sum = 0;
  for (unsigned seed = 0; seed < 6; ++seed) {
    const at::Tensor weight = normal(1, n, 100 + seed);
    const at::Tensor hessian = correlated_hessian(n, 200 + seed);
    GptqOptions options;
    options.damping = 1e-9;
    options.descents = 4;
    const GptqResult found = gptq_quantize(weight, hessian, scheme, options);
    QuantizedWeight trial = found.weight;
    trial.codes = trial.codes.clone();
    double best = std::numeric_limits<double>::infinity();
    for (int k = 0; k < 1024; ++k) {
      for (int j = 0; j < n; ++j) {
        trial.codes.data_ptr<std::uint8_t>()[j] = static_cast<std::uint8_t>(k >> 2 * j & 3);
      }
      best = std::min(best, double_loss(weight, trial, hessian));
    }
    const double loss = double_loss(weight, found.weight, hessian);
    EXPECT_GE(loss, best * (1 - 1e-6));
    best_sum += best;
    found_sum += loss;
  }
  EXPECT_LE(found_sum, 1.3 * best_sum);
}

TEST_F(Gptq, RefitsAndDescentsOnlyLowerTheLoss) {
  const at::Tensor hessian = hessian_.to(at::kFloat);
  for (const ZeroPoint zero_point :
       {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    QuantizedWeight quantized = rtn_quantize(weight_, scheme_of(3, 32, zero_point)).weight;
    at::Tensor loss = linalg::row_losses(weight_, values_of(quantized), hessian);
    EXPECT_GT(refit_scales(weight_, hessian, quantized), 0);
    std::int64_t moved = 1;
    for (int pass = 0; pass < 4 && moved > 0; ++pass) {
      const at::Tensor lower = linalg::row_losses(weight_, values_of(quantized), hessian);
      EXPECT_TRUE((lower <= loss * 1.0001).all().item<bool>()) << pass << to_string(zero_point);
      EXPECT_LT(lower.sum().item<double>(), loss.sum().item<double>());
      loss = lower;
      moved = descend(weight_, hessian, quantized);
      EXPECT_TRUE(pass > 0 || moved > 0);
    }
    EXPECT_NO_THROW(check(quantized, "refined"));
    EXPECT_TRUE(quantized.scale.to(at::kHalf).to(at::kFloat).equal(quantized.scale));
  }
}

// Their errors cost nothing that is known, and no other column makes up for them.
TEST_F(Gptq, RoundsInputsThatNeverSpokePlainlyAndNamesThem) {
  at::Tensor hessian = hessian_.clone();
  for (const std::int64_t j : {3, 77}) {
    hessian.select(0, j).zero_();
    hessian.select(1, j).zero_();
  }
  const GptqResult result = gptq_quantize(weight_, hessian, scheme_of(4, 32));
  EXPECT_THAT(result.dead_columns, testing::ElementsAre(3, 77));
  const Grid grid{result.weight.scheme, result.weight.scale, result.weight.zero};
  const at::Tensor plain = quantize_to_grid(weight_, grid).codes;
  for (const std::int64_t j : {3, 77}) {
    EXPECT_TRUE(at::equal(result.weight.codes.select(1, j), plain.select(1, j)));
    EXPECT_FALSE(values_of(result.weight).select(1, j).eq(0).all().item<bool>());
  }
}

// -0.05 mean(diag) off the diagonal's smallest eigenvalue: damping 0.01 fails, 0.1 or 1 holds.
TEST_F(Gptq, ClimbsTheLadderOfDampingAndRecordsEachStep) {
  const double mean = hessian_.diagonal().mean().item<double>();
  const at::Tensor shifted = hessian_ - at::eye(128, at::kDouble) * (0.05 * mean);
  ASSERT_TRUE(shifted.diagonal().gt(0).all().item<bool>());
  GptqOptions options;
  options.damping = 0.01;
  const GptqResult result = gptq_quantize(weight_, shifted, scheme_of(4, 32), options);
  EXPECT_FALSE(result.rounded_plainly);
  EXPECT_NEAR(result.damping, 0.1, 1e-12);
  ASSERT_EQ(result.fallbacks.size(), 1u);
  EXPECT_THAT(result.fallbacks[0], testing::HasSubstr("damping 0.01"));
}

TEST_F(Gptq, RoundsPlainlyOrRefusesWhenNoDampingHelps) {
  at::Tensor hopeless = hessian_.clone();
  const double huge = 1e9 * hessian_.diagonal().mean().item<double>();
  hopeless.select(0, 1).select(0, 2).fill_(huge);
  hopeless.select(0, 2).select(0, 1).fill_(huge);
  GptqOptions options;
  const GptqResult result = gptq_quantize(weight_, hopeless, scheme_of(4, 32), options);
  EXPECT_TRUE(result.rounded_plainly);
  EXPECT_EQ(result.fallbacks.size(), 7u);
  EXPECT_EQ(result.damping, 0);
  options.round_plainly_on_failure = false;
  EXPECT_THROW(gptq_quantize(weight_, hopeless, scheme_of(4, 32), options), NumericRefusal);
  EXPECT_THROW(
      gptq_quantize(weight_, at::zeros({128, 128}, at::kDouble), scheme_of(4, 32), options),
      NumericRefusal);
}

TEST_F(Gptq, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  const at::Tensor weight = normal(70, 128, 8);
  set_threads(1);
  const GptqResult one = gptq_quantize(weight, hessian_, scheme_of(4, 64));
  set_threads(2);
  const GptqResult two = gptq_quantize(weight, hessian_, scheme_of(4, 64));
  set_threads(before);
  EXPECT_TRUE(same_weight(one.weight, two.weight));
  EXPECT_EQ(one.loss, two.loss);
}

TEST_F(Gptq, NamesThePlaceOfANaN) {
  at::Tensor weight = weight_.clone();
  weight.select(0, 4).select(0, 9).fill_(std::nanf(""));
  at::Tensor hessian = hessian_.clone();
  hessian.select(0, 6).select(0, 8).fill_(std::numeric_limits<double>::infinity());
  const auto said = [&](const at::Tensor& w, const at::Tensor& h) -> std::string {
    try {
      gptq_quantize(w, h, scheme_of(4, 32), {}, "layer 3 q");
    } catch (const NumericRefusal& error) {
      return error.what();
    }
    return "nothing";
  };
  EXPECT_THAT(said(weight, hessian_), testing::HasSubstr("[layer 3 q] the weight holds nan at row "
                                                         "4, column 9"));
  EXPECT_THAT(said(weight_, hessian), testing::HasSubstr("the Hessian holds inf at row 6, column "
                                                         "8"));
}

TEST_F(Gptq, RefusesOptionsThatContradictEachOther) {
  GptqOptions options;
  options.static_groups = false;
  EXPECT_THROW(gptq_quantize(weight_, hessian_, scheme_of(4, 32), options), UsageError);
  EXPECT_THROW(gptq_quantize(weight_, hessian_, scheme_of(4, 100)), UsageError);
  EXPECT_THROW(gptq_quantize(weight_, correlated_hessian(64, 1), scheme_of(4, 32)), UsageError);
}

// A mask of an earlier pass: every weight that was 0 is 0 afterwards, through sweep, refit and
// descent, and what it cost was moved onto the others.
TEST(GptqOnAMask, KeepsZerosAndStillMovesErrors) {
  const at::Tensor hessian = correlated_hessian(64, 3);
  const at::Tensor keep = normal(24, 64, 5).gt(0);
  const at::Tensor weight = normal(24, 64, 4) * keep;
  for (const bool live : {false, true}) {
    GptqOptions options;
    options.act_order = options.static_groups = !live;
    options.refits = options.descents = 2;
    options.keep = keep;
    const GptqResult result = gptq_quantize(weight, hessian, scheme_of(4, 32), options);
    EXPECT_EQ(values_of(result.weight).masked_select(keep.logical_not()).abs().max().item<float>(),
              0.0f);
    const at::Tensor plain = values_of(rtn_quantize(weight, scheme_of(4, 32)).weight);
    EXPECT_LT(result.loss, 0.8 * result.rtn_loss);
    EXPECT_EQ(plain.masked_select(keep.logical_not()).abs().max().item<float>(), 0.0f);
  }
}

// A grid of minima or of a table has no 0 to keep: such weights are rounded like the others, to
// codes that the file has.
TEST(GptqOnAMask, RoundsItLikeTheRestWhereTheGridHoldsNoZero) {
  const at::Tensor hessian = correlated_hessian(256, 3);
  const at::Tensor weight = normal(24, 256, 4) * normal(24, 256, 5).gt(0);
  QuantScheme minima = scheme_of(4, 32);
  minima.zero_point = ZeroPoint::kMinimum;
  for (const QuantScheme& scheme :
       {minima, block_scheme(BlockGrid::kIq4Nl), block_scheme(BlockGrid::kIq4Xs),
        block_scheme(BlockGrid::kQ4K)}) {
    ASSERT_FALSE(scheme.holds_zero());
    GptqOptions options;
    const GptqResult free = gptq_quantize(weight, hessian, scheme, options);
    options.keep = weight.ne(0);
    const GptqResult masked = gptq_quantize(weight, hessian, scheme, options);
    EXPECT_TRUE(at::equal(masked.weight.codes, free.weight.codes)) << describe(scheme);
  }
  for (const BlockGrid grid :
       {BlockGrid::kQ3K, BlockGrid::kQ6K, BlockGrid::kFp8, BlockGrid::kMxfp4, BlockGrid::kNf4}) {
    GptqOptions options;
    options.keep = weight.ne(0);
    const GptqResult masked = gptq_quantize(weight, hessian, block_scheme(grid), options);
    EXPECT_EQ(values_of(masked.weight).masked_select(weight.eq(0)).abs().max().item<float>(), 0.0f)
        << to_string(grid);
  }
}

TEST_F(Gptq, OnePreparedHessianGivesEachLayerOfAnInputItsOwnCodes) {
  const GptqOptions options;
  const QuantScheme scheme = scheme_of(4, 32);
  const linalg::SweepHessian shared =
      linalg::prepare_hessian(hessian_, options.act_order, options.damping, "test");
  for (const unsigned seed : {11u, 12u}) {
    const at::Tensor weight = normal(24, 128, seed);
    EXPECT_TRUE(same_weight(gptq_quantize(weight, shared, scheme, options, "test").weight,
                            gptq_quantize(weight, hessian_, scheme, options, "test").weight));
  }
}

}  // namespace
}  // namespace attar
