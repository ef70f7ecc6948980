// prune.depth over whole models.
#include "prune/depth.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "compress/core/errors.h"
#include "tests/prune/model_tools.h"

namespace attar {
namespace {

using namespace testing;

TEST(BlockInfluence, IsOneMinusTheMeanCosine) {
  const at::Tensor a = at::tensor({1.0f, 2.0f, 3.0f}).reshape({1, 3});
  const at::Tensor b = at::tensor({1.0f, 2.5f, 2.0f}).reshape({1, 3});
  EXPECT_NEAR(block_influence(a, a), 0, 1e-12);
  EXPECT_NEAR(block_influence(a, -a), 2, 1e-12);
  const std::filesystem::path path = ATTAR_SOURCE_DIR "/../shared/specs/golden/golden.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/specs/golden/golden.json";
  nlohmann::json golden;
  std::ifstream(path) >> golden;
  EXPECT_NEAR(block_influence(a, b), golden["bi"].get<double>(), 1e-12);
}

// The second block adds next to nothing.
Model with_an_idle_block() {
  return model_with([](std::int64_t index, Block& block) {
    if (index != 1) return;
    for (const Role role : {Role::kOutput, Role::kDown}) {
      block[role].weight = DenseWeight{1e-3 * dense(block[role].weight)};
    }
  });
}

TEST(DepthPass, RemovesTheBlockThatDoesNothing) {
  const Model model = with_an_idle_block();
  for (const char* choose : {"kl", "block_influence"}) {
    DepthConfig config;
    config.choose = choose;
    const Outcome outcome = run(DepthPass(config), model);
    EXPECT_EQ(outcome.model.config().layers, 2);
    EXPECT_EQ(outcome.model.source_block(1), 2) << choose;
    EXPECT_LT(distance(outcome.model, model), 1e-4);
    ASSERT_EQ(outcome.report.changed.size(), 1U);
    EXPECT_EQ(outcome.report.changed[0].layer, "model.layers.1");
  }
  DepthConfig last;
  last.choose = "last";
  const Outcome outcome = run(DepthPass(last), model);
  EXPECT_EQ(outcome.model.source_block(1), 1);
  EXPECT_GT(distance(outcome.model, model), 1e-2);
}

TEST(DepthPass, APatchLowersWhatARemovalCosts) {
  const Model model = testing::random_model();
  for (const char* unit : {"block", "attention", "mlp"}) {
    DepthConfig config;
    config.unit = unit;
    config.windows = 24;
    const Outcome patched = run(DepthPass(config), model);
    config.patch = false;
    const Outcome plain = run(DepthPass(config), model);
    ASSERT_EQ(patched.report.changed.size(), 1U);
    EXPECT_EQ(patched.report.changed[0].layer, plain.report.changed[0].layer);
    EXPECT_LT(patched.report.changed[0].error, plain.report.changed[0].error) << unit;
  }
}

// A unit that does nothing goes, and the model computes the same.
TEST(DepthPass, RemovesAttentionOrMlpAlone) {
  struct Case {
    const char *unit, *layer;
    Role writer;
  };
  for (const auto& [unit, layer, writer] :
       {Case{"attention", "model.layers.1.self_attn", Role::kOutput},
        Case{"mlp", "model.layers.1.mlp", Role::kDown}}) {
    const Model model = model_with([&](std::int64_t index, Block& block) {
      if (index == 1) block[writer].weight = DenseWeight{1e-3 * dense(block[writer].weight)};
    });
    DepthConfig config;
    config.unit = unit;
    for (const char* choose : {"kl", "block_influence"}) {
      config.choose = choose;
      const Outcome outcome = run(DepthPass(config), model);
      EXPECT_EQ(outcome.model.config().layers, 3);
      ASSERT_EQ(outcome.report.changed.size(), 1U);
      EXPECT_EQ(outcome.report.changed[0].layer, layer) << choose;
      EXPECT_LT(distance(outcome.model, model), 1e-4) << unit;
      const Block left = outcome.model.block(1);
      EXPECT_EQ(attends(left), writer == Role::kDown);
      EXPECT_EQ(shape_of(left[Role::kDown].weight).in, writer == Role::kDown ? 32 : 160);
      // Sketched on the last block; what it leaves in all is what the pass leaves.
      const ModelConfig planned = DepthPass(config).shape_after(model.config());
      EXPECT_TRUE(planned.widths_open);
      EXPECT_EQ(planned.widths_of(2), outcome.model.config().widths_of(1));
    }
    config.choose = "last";
    const Outcome last = run(DepthPass(config), model);
    EXPECT_NE(last.report.changed[0].layer, layer);
    EXPECT_GT(distance(last.model, model), 1e-2);
    config.remove = 2;  // of the two that are left in `last`, where one has to stay
    EXPECT_THROW(DepthPass(config).shape_after(last.model.config()), DoesNotFit);
  }
}

TEST(DepthPass, LeavesTheLastAttentionThatThereIs) {
  const Model model = testing::random_model();
  DepthConfig config;
  config.unit = "attention";
  config.remove = 2;
  const Outcome one = run(DepthPass(config), model);
  config.unit = "block";
  EXPECT_TRUE(DepthPass(config).shape_after(one.model.config()).attends());
  const Outcome left = run(DepthPass(config), one.model);
  EXPECT_EQ(left.model.config().layers, 1);
  EXPECT_TRUE(attends(left.model.block(0)));
}

TEST(DepthPass, RefusesWhatCannotBe) {
  DepthConfig config;
  config.remove = 3;
  EXPECT_THROW(DepthPass(config).shape_after(small_config()), DoesNotFit);
}

}  // namespace
}  // namespace attar
