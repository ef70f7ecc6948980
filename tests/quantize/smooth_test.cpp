#include "quantize/smooth.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "quantize/passes.h"
#include "quantize/smooth_pass.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

QuantScheme w8a8() {
  QuantScheme scheme = scheme_of(8, 0, ZeroPoint::kSymmetric);
  scheme.activation_bits = 8;
  return scheme;
}

class Smooth : public testing::Test {
 protected:
  // Channel 5 is sixty times as loud as the others, which share its step.
  void SetUp() override {
    set_up_numerics();
    problem_.rows = normal(200, 64, 3);
    problem_.rows.select(1, 5).mul_(60.0);
    problem_.weights = {normal(40, 64, 1), normal(24, 64, 2)};
    problem_.max_absolute = problem_.rows.abs().amax(0);
  }
  SmoothProblem problem_;
};

// In double and from the formulas alone.
double loss_of(const SmoothProblem& problem, const at::Tensor& scale) {
  const at::Tensor x = problem.rows.to(at::kDouble) / scale;
  const at::Tensor a = x.abs().amax(1, true) / 127.5;
  const at::Tensor rounded = (x / a).round().clamp(-128, 127) * a;
  double loss = 0;
  for (const at::Tensor& weight : problem.weights) {
    const at::Tensor scaled = weight * scale;
    const at::Tensor values =
        values_of(
            quantize_to_grid(scaled, choose_grid(scaled, scheme_of(8, 0, ZeroPoint::kSymmetric))))
            .to(at::kDouble);
    const at::Tensor right = problem.rows.to(at::kDouble).mm(weight.to(at::kDouble).t());
    loss += ((rounded.mm(values.t()) - right).square().sum() / right.square().sum()).item<double>();
  }
  return loss;
}

TEST_F(Smooth, TakesALoudChannelOutOfTheActivations) {
  const SmoothScales found = search_smooth_scales(problem_, w8a8());
  EXPECT_LT(found.loss, 0.2 * found.plain_loss);
  EXPECT_GT(found.scale[5].item<float>(), 3 * found.scale[6].item<float>());
  // The largest value of a token lies on a tie, which float32 and double break each its own way.
  EXPECT_NEAR(found.loss, loss_of(problem_, found.scale), 0.05 * found.loss);
  EXPECT_NEAR(found.plain_loss, loss_of(problem_, at::full({64}, 1.0f)), 0.05 * found.plain_loss);
  EXPECT_NEAR((found.scale.max() * found.scale.min()).item<double>(), 1.0, 1e-5);
}

TEST_F(Smooth, NeverLosesToScalesOfOneAndDoesNotDependOnThreads) {
  const int before = threads();
  for (unsigned seed = 0; seed < 5; ++seed) {
    SmoothProblem even{{normal(16, 64, 50 + seed)}, normal(90, 64, 70 + seed), {}, {}};
    even.max_absolute = even.rows.abs().amax(0);
    set_threads(1);
    const SmoothScales one = search_smooth_scales(even, w8a8());
    EXPECT_LE(one.loss, one.plain_loss);
    set_threads(2);
    const SmoothScales two = search_smooth_scales(even, w8a8());
    EXPECT_TRUE(at::equal(one.scale, two.scale));
    EXPECT_EQ(one.loss, two.loss);
  }
  set_threads(before);
}

TEST_F(Smooth, GivesTiedColumnsOneScale) {
  at::Tensor ids = at::arange(64, at::kLong).remainder(32);
  problem_.tied = ids;
  const SmoothScales found = search_smooth_scales(problem_, w8a8());
  EXPECT_TRUE(at::equal(found.scale.narrow(0, 0, 32), found.scale.narrow(0, 32, 32)));
  EXPECT_LT(found.loss, found.plain_loss);
}

TEST_F(Smooth, OfNoTokensOrNoInputIsOnes) {
  SmoothProblem silent = problem_;
  silent.rows = problem_.rows * 0;
  silent.max_absolute = problem_.max_absolute * 0;
  EXPECT_TRUE(at::equal(search_smooth_scales(silent, w8a8()).scale, at::ones({64}, at::kFloat)));
  silent.rows = problem_.rows.narrow(0, 0, 0);
  EXPECT_TRUE(at::equal(search_smooth_scales(silent, w8a8()).scale, at::ones({64}, at::kFloat)));
  problem_.max_absolute = problem_.max_absolute.narrow(0, 0, 5);
  EXPECT_THROW(search_smooth_scales(problem_, w8a8()), UsageError);
}

ModelConfig one_block() {
  ModelConfig config;
  config.layers = 1;
  config.hidden = 64;
  config.heads = config.kv_heads = 4;
  config.head_dim = 16;
  config.ffn = 128;
  config.vocabulary = 100;
  config.max_positions = 64;
  return config;
}

RtnConfig rounding() {
  RtnConfig config;
  config.bits = 8;
  config.group_size = 0;
  config.symmetric = true;
  config.activations = 8;
  return config;
}

TEST(SmoothPass, ScalesWhatALaterPassRoundsTheInputsOf) {
  std::vector<std::unique_ptr<Pass>> passes;
  passes.push_back(std::make_unique<SmoothPass>(SmoothConfig{}));
  RtnConfig rtn = rounding();
  rtn.skip = {"down"};
  passes.push_back(std::make_unique<RtnPass>(rtn));
  const auto plans = plan_passes(passes, one_block());
  const auto& layers = plans[0].layers;
  EXPECT_EQ(layers[index_of(Role::kQuery)].action,
            "smooth scales for W8A8 rows symmetric, rounded by a later pass");
  EXPECT_FALSE(layers[index_of(Role::kDown)].changes);
  EXPECT_EQ(plans[1].layers[index_of(Role::kQuery)].action, "rtn W8A8 rows symmetric");
}

TEST(SmoothPass, IsRefusedWhereNothingRoundsActivations) {
  std::vector<std::unique_ptr<Pass>> passes;
  passes.push_back(std::make_unique<SmoothPass>(SmoothConfig{}));
  passes.push_back(std::make_unique<RtnPass>(RtnConfig{}));
  EXPECT_THROW(plan_passes(passes, one_block()), UsageError);
}

TEST(Activations, AreRoundedForAllReadersOfAnInputOrForNone) {
  RtnConfig rtn = rounding();
  rtn.skip = {"up"};
  EXPECT_THROW(RtnPass(rtn).plan(one_block()), DoesNotFit);
  rtn.skip = {"up", "gate"};
  EXPECT_NO_THROW(RtnPass(rtn).plan(one_block()));
  rtn.activations = 4;
  EXPECT_THROW(RtnPass{rtn}, UsageError);
  rtn.activations = 8;
  rtn.type = "Q8_0";
  EXPECT_THROW(RtnPass{rtn}, UsageError);
}

}  // namespace
}  // namespace attar
