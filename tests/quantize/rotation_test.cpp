// A rotated model computes what it did, and no channel of its stream stands out.
#include "quantize/rotation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "compress/core/numerics.h"
#include "quantize/rotate_pass.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;

ModelConfig config_of(bool tied) {
  ModelConfig config = testing::small_config();
  config.hidden = 48;  // 4 x 12
  config.tied_head = tied;
  return config;
}

// Every norm its own weights, and one channel of the stream that is far larger than the others.
Model model_of(const ModelConfig& config) {
  Model model(std::make_shared<testing::RandomSource>(config, /*biases=*/true));
  OuterWeights outer{model.embedding(), 1 + normal({config.hidden}, "final norm", 0.3), {}};
  at::Tensor embedding = dense(outer.embedding).clone();
  embedding.select(1, 5).add_(30);
  outer.embedding = DenseWeight{embedding};
  if (!config.tied_head) outer.head = DenseWeight{normal({config.vocabulary, config.hidden}, "h")};
  model.put_outer(outer);
  return model;
}

const at::Tensor& ids() {
  static const at::Tensor kIds = at::arange(40, at::kLong).mul(37).remainder(101).reshape({2, 20});
  return kIds;
}

at::Tensor states_of(const Model& model) {
  const RopeTable rope = rope_table(model.config(), ids().size(1));
  at::Tensor x = embed(model.embedding(), ids());
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    x = block_forward(model.config(), model.block(i), rope, x);
  }
  return x;
}

at::Tensor logits_of(const Model& model) {
  return rms_norm(states_of(model), model.final_norm(), model.config().norm_eps)
      .matmul(dense(model.head()).t());
}

struct Rotated {
  Model model;
  PassReport report;
};

Rotated rotate(const Model& model, const RotateConfig& config, std::uint64_t seed = 1) {
  Rotated rotated{model.successor(std::make_shared<MemoryModelStore>()), {}};
  RunContext context;
  context.seed = seed;
  ModelWork work{model, rotated.model, model, nullptr, nullptr, {}, rotated.report, context};
  RotatePass(config).run(work);
  return rotated;
}

class Rotation : public ::testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }
};

TEST_F(Rotation, ChangesNothingThatTheModelComputes) {
  for (const bool tied : {true, false}) {
    const Model model = model_of(config_of(tied));
    const at::Tensor before = logits_of(model);
    for (const RotateConfig& config :
         {RotateConfig{true, true}, RotateConfig{true, false}, RotateConfig{false, true}}) {
      const Rotated rotated = rotate(model, config);
      EXPECT_LT((logits_of(rotated.model) - before).abs().max().item<double>(),
                1e-5 * before.abs().max().item<double>());
      EXPECT_EQ(rotated.model.config().tied_head, tied && !config.stream);
      EXPECT_EQ(rotated.model.config().tied_head,
                RotatePass(config).shape_after(model.config()).tied_head);
      EXPECT_EQ(rotated.report.changed.size(), config.stream ? 21 : 6);
      const auto planned = RotatePass(config).plan(model.config());
      EXPECT_EQ(
          std::count_if(planned.begin(), planned.end(), [](const auto& l) { return l.changes; }),
          config.stream ? 21 : 6);
    }
  }
}

TEST_F(Rotation, LeavesNoChannelThatStandsOut) {
  const auto peak = [](const at::Tensor& x) {  // largest channel over the mean of all
    const at::Tensor sizes = x.square().mean({0, 1}).sqrt();
    return (sizes.max() / sizes.mean()).item<double>();
  };
  const Model model = model_of(config_of(true));
  EXPECT_GT(peak(states_of(model)), 8);
  EXPECT_LT(peak(states_of(rotate(model, {}).model)), 3);
}

TEST_F(Rotation, FollowsTheSeed) {
  const Model model = model_of(config_of(true));
  const auto value = [&](std::uint64_t seed) {
    return dense(rotate(model, {}, seed).model.block(1)[Role::kValue].weight);
  };
  EXPECT_TRUE(value(1).equal(value(1)));
  EXPECT_FALSE(value(1).equal(value(2)));
}

TEST_F(Rotation, SaysWhereOnlyPartsAreRotated) {
  ModelConfig config = config_of(true);
  EXPECT_TRUE(rotate(model_of(config), {}).report.events.empty());
  config.hidden = 36 * 2 + 2;  // 74 = 2 x 37: no matrix of this order
  const Model model = model_of(config);
  const Rotated rotated = rotate(model, {});
  ASSERT_EQ(rotated.report.events.size(), 1U);
  EXPECT_EQ(rotated.report.events[0].kind, "rotation_in_blocks");
  EXPECT_FALSE(rotated.report.events[0].fallback);
  const at::Tensor before = logits_of(model);
  EXPECT_LT((logits_of(rotated.model) - before).abs().max().item<double>(),
            1e-5 * before.abs().max().item<double>());
}

TEST_F(Rotation, RefusesToDoNothing) {
  EXPECT_THROW(RotatePass(RotateConfig{false, false}), UsageError);
}

}  // namespace
}  // namespace attar
