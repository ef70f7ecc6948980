#include "quantize/awq.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/linalg/quadratic_loss.h"
#include "quantize/gptq.h"
#include "quantize/rtn.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

class Awq : public testing::Test {
 protected:
  // Channel 5 is thirty times as loud as the others.
  void SetUp() override {
    set_up_numerics();
    at::Tensor x = normal(600, 64, 3).to(at::kDouble);
    x.select(1, 5).mul_(30.0);
    problem_.weights = {normal(40, 64, 1), normal(24, 64, 2)};
    problem_.gram = x.t().mm(x);
    problem_.mean_absolute = x.abs().mean(0);
  }
  AwqProblem problem_;
  QuantScheme scheme_ = scheme_of(3, 32);
};

double loss_of(const AwqProblem& problem, const at::Tensor& scale, const QuantScheme& scheme) {
  double loss = 0, size = 0;
  for (const at::Tensor& weight : problem.weights) {
    const at::Tensor rounded = values_of(rtn_quantize(weight * scale, scheme).weight) / scale;
    const at::Tensor change = (rounded - weight).to(at::kDouble);
    loss += (change.mm(problem.gram) * change).sum().item<double>();
    size += (weight.to(at::kDouble).mm(problem.gram) * weight).sum().item<double>();
  }
  return loss / size;
}

TEST_F(Awq, ProtectsALoudChannel) {
  const AwqScales found = search_awq_scales(problem_, scheme_);
  EXPECT_LT(found.loss, 0.5 * found.plain_loss);
  EXPECT_GT(found.scale[5].item<float>(), found.scale[6].item<float>());
  EXPECT_NEAR(found.loss, loss_of(problem_, found.scale, scheme_), 1e-3 * found.loss);
  EXPECT_NEAR(found.plain_loss, loss_of(problem_, at::full({64}, 1.0f), scheme_),
              1e-3 * found.plain_loss);
  const double extremes = (found.scale.max() * found.scale.min()).item<double>();
  EXPECT_NEAR(extremes, 1.0, 1e-5);
}

TEST_F(Awq, NeverLosesToScalesOfOne) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    AwqProblem even{{normal(16, 64, 50 + seed)},
                    at::eye(64, at::kDouble),
                    at::full({64}, 0.8, at::kDouble),
                    {},
                    {}};
    const AwqScales found = search_awq_scales(even, scheme_);
    EXPECT_LE(found.loss, found.plain_loss);
  }
}

TEST_F(Awq, KeepsTiedColumnsEqual) {
  problem_.tied = tied_over_query_heads(4, 2, 16);
  const AwqScales found = search_awq_scales(problem_, scheme_);
  EXPECT_GT(found.alpha + found.beta, 0);
  const at::Tensor heads = found.scale.reshape({2, 2, 16});
  EXPECT_TRUE(heads.select(1, 0).equal(heads.select(1, 1)));
}

TEST(AwqTies, NumberTheRowsOfTheValueProjection) {
  const at::Tensor expected = at::tensor({0, 1, 0, 1, 2, 3, 2, 3}, at::kLong);
  EXPECT_TRUE(tied_over_query_heads(4, 2, 2).equal(expected));
  EXPECT_THROW(tied_over_query_heads(3, 2, 2), UsageError);
}

// A row that costs nothing cannot sway the choice.
TEST_F(Awq, WeighsRowsByTheirImportance) {
  at::Tensor first = at::full({40}, 1.0, at::kDouble);
  at::Tensor none = at::full({24}, 0.0, at::kDouble);
  AwqProblem both = problem_;
  both.row_importance = {first, none};
  AwqProblem alone = problem_;
  alone.weights = {problem_.weights[0]};
  AwqOptions options;
  options.weight_scale = false;  // the weights' own magnitudes see all rows
  const AwqScales a = search_awq_scales(both, scheme_, options);
  const AwqScales b = search_awq_scales(alone, scheme_, options);
  EXPECT_EQ(a.alpha, b.alpha);
  EXPECT_NEAR(a.loss, b.loss, 1e-9);
}

TEST_F(Awq, ClippedGridNeverLosesToTheFullRangeUnderItsOwnBlock) {
  const at::Tensor& weight = problem_.weights[0];
  const Grid clipped = search_clipped_grid(weight, problem_.gram, scheme_);
  const Grid full = choose_grid(weight, scheme_);
  const auto block_loss = [&](const Grid& grid, std::int64_t g) {
    const at::Tensor change =
        (values_of(quantize_to_grid(weight, grid)) - weight).to(at::kDouble).narrow(1, g * 32, 32);
    const at::Tensor block = problem_.gram.narrow(0, g * 32, 32).narrow(1, g * 32, 32);
    return (change.mm(block) * change).sum(1);
  };
  for (std::int64_t g = 0; g < 2; ++g) {
    EXPECT_TRUE((block_loss(clipped, g) <= block_loss(full, g) * 1.0001).all().item<bool>());
    EXPECT_LT(block_loss(clipped, g).sum().item<double>(),
              0.97 * block_loss(full, g).sum().item<double>());
  }
}

// The promised loss is that of a sweep on the scaled weights, and real GPTQ there gains too.
TEST_F(Awq, ChoosesScalesForTheSweepThatFollows) {
  AwqProblem problem = problem_;
  problem.gram = correlated_hessian(64, 9);
  problem.mean_absolute = problem.gram.diagonal().sqrt() / 20.0;
  AwqOptions options;
  options.for_gptq = true;
  const AwqScales found = search_awq_scales(problem, scheme_, options);
  EXPECT_LT(found.loss, found.plain_loss);
  GptqOptions sweep;
  sweep.search = false;
  sweep.refits = sweep.descents = 0;
  double before = 0, after = 0;
  for (const at::Tensor& weight : problem.weights) {
    const at::Tensor inverse = found.scale.to(at::kDouble).reciprocal();
    const at::Tensor scaled_gram = problem.gram * inverse.outer(inverse);
    before += gptq_quantize(weight, problem.gram, scheme_, sweep).loss *
              linalg::hessian_loss(weight * 0.0f, weight, problem.gram);
    after += gptq_quantize(weight * found.scale, scaled_gram, scheme_, sweep).loss *
             linalg::hessian_loss(weight * 0.0f, weight, problem.gram);
  }
  EXPECT_LT(after, before);
}

TEST_F(Awq, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  set_threads(1);
  const AwqScales one = search_awq_scales(problem_, scheme_);
  set_threads(2);
  const AwqScales two = search_awq_scales(problem_, scheme_);
  set_threads(before);
  EXPECT_TRUE(one.scale.equal(two.scale));
  EXPECT_EQ(one.loss, two.loss);
}

TEST_F(Awq, RefusesPartsThatDisagree) {
  AwqProblem wrong = problem_;
  wrong.weights.push_back(normal(4, 32, 1));
  EXPECT_THROW(search_awq_scales(wrong, scheme_), UsageError);
  wrong = problem_;
  wrong.mean_absolute = at::full({63}, 1.0, at::kDouble);
  EXPECT_THROW(search_awq_scales(wrong, scheme_), UsageError);
  wrong = problem_;
  wrong.gram = problem_.gram * std::nan("");
  EXPECT_THROW(search_awq_scales(wrong, scheme_), NumericRefusal);
  EXPECT_THROW(search_awq_scales({}, scheme_), UsageError);
}

}  // namespace
}  // namespace attar
