#include "compress/train/token_weights.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/forward.h"
#include "compress/train/sparse_targets.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::random_model;

constexpr std::int64_t kLength = 12;

at::Tensor some_ids(std::int64_t windows) {
  return (at::arange(windows * kLength, at::kLong) * 7).remainder(101).reshape({windows, kLength});
}

// The loss of drawn tokens when `change` is added to what the MLP of the last block gives.
double loss_of(const Model& model, const at::Tensor& ids, const at::Tensor& targets,
               const at::Tensor& change) {
  const ModelConfig& config = model.config();
  const RopeTable rope = rope_table(config, kLength);
  at::Tensor x = embed(model.embedding(), ids);
  for (std::int64_t i = 0; i < config.layers; ++i) {
    x = block_forward(config, model.block(i), rope, x);
  }
  x = rms_norm(x + change, model.final_norm(), config.norm_eps);
  const at::Tensor logits = at::mm(x[0], dense(model.head()).t()).to(at::kDouble);
  const at::Tensor log_probabilities = logits.log_softmax(1);
  return -log_probabilities.gather(1, targets.unsqueeze(1)).sum().item<double>();
}

// Of one window and the last block's outputs, by central differences: weights of places 0 and 1,
// which are not means over other places.
TEST(TokenWeights, AreTheSquaredGradientsOfTheOutputs) {
  const Model model = random_model();
  const ModelConfig& config = model.config();
  const at::Tensor ids = some_ids(1);
  const RunContext context{.seed = 3};
  at::Tensor x = embed(model.embedding(), ids);
  const RopeTable rope = rope_table(config, kLength);
  for (std::int64_t i = 0; i < config.layers; ++i) {
    x = block_forward(config, model.block(i), rope, x);
  }
  const at::Tensor states = rms_norm(x, model.final_norm(), config.norm_eps)[0];
  const at::Tensor targets = drawn_tokens(states, dense(model.head()), context.seed, 0);
  std::vector<double> squares;
  for (std::int64_t place = 0; place < 2; ++place) {
    double sum = 0;
    for (std::int64_t c = 0; c < config.hidden; ++c) {
      at::Tensor change = at::zeros({1, kLength, config.hidden});
      change[0][place][c] = 1e-2;
      const double slope =
          (loss_of(model, ids, targets, change) - loss_of(model, ids, targets, -change)) / 2e-2;
      sum += slope * slope;
    }
    squares.push_back(sum);
  }
  const at::Tensor weights = token_weights(model, ids, 1, context).weights;
  ASSERT_EQ(weights.sizes(), at::IntArrayRef({config.layers, 4, kLength}));
  const at::Tensor last = weights[config.layers - 1][3];
  const double found = last[0].item<double>() / last[1].item<double>();
  EXPECT_NEAR(found, squares[0] / squares[1], 0.02 * found);
}

// Places [0], [1], [2, 3], [4, 7], [8, 11] share a weight each.
TEST(TokenWeights, AreMeansOfOneOverWindowsAndPlaces) {
  const Model model = random_model();
  const at::Tensor ids = some_ids(6);
  const at::Tensor weights = token_weights(model, ids, 6, {}).weights;
  EXPECT_LT((weights.mean(2) - 1).abs().max().item<float>(), 1e-5);
  EXPECT_GT(weights.min().item<float>(), 0);
  for (const auto& [first, second] : {std::pair{2, 3}, {4, 7}, {8, 11}}) {
    EXPECT_TRUE(at::equal(weights.select(2, first), weights.select(2, second)));
  }
  EXPECT_FALSE(at::equal(weights.select(2, 0), weights.select(2, 1)));
  // More windows than there are is all of them, and the first ones alone give something else.
  EXPECT_TRUE(at::equal(weights, token_weights(model, ids, 100, {}).weights));
  EXPECT_FALSE(at::equal(weights, token_weights(model, ids, 5, {}).weights));
}

// Nothing is known then; whoever rounds finds the layer and says so.
TEST(TokenWeights, LeaveWindowsOutWhoseGradientsAreNotFinite) {
  Model model = random_model();
  Block block = model.block(1);
  at::Tensor values = dense(block[Role::kUp].weight).clone();
  values[0][0] = NAN;
  block[Role::kUp].weight = DenseWeight{values};
  model.put_block(1, block);
  const TokenWeights found = token_weights(model, some_ids(5), 5, {});
  EXPECT_FALSE(found.weights.defined());
  EXPECT_EQ(found.dropped, 5);
}

TEST(TokenWeights, AreTheSameForAnyNumberOfThreads) {
  const Model model = random_model();
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = token_weights(model, some_ids(5), 5, {}).weights;
  at::set_num_threads(2);
  const at::Tensor two = token_weights(model, some_ids(5), 5, {}).weights;
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, two));
}

}  // namespace
}  // namespace attar
