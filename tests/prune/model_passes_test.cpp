// The passes over whole models, on small random ones whose answer is known; prune.depth has a file
// of its own.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/calibrate/block_sensitivity.h"
#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "prune/channels.h"
#include "prune/slicing.h"
#include "prune/structured_obs.h"
#include "prune/vocabulary.h"
#include "prune/width.h"
#include "tests/prune/model_tools.h"

namespace attar {
namespace {

using namespace testing;

WidthConfig width(double ffn, double kv_heads, double hidden) {
  WidthConfig config;
  config.ffn = ffn;
  config.kv_heads = kv_heads;
  config.hidden = hidden;
  config.align = 16;
  return config;
}

void silence_columns(Linear& linear, std::int64_t first, std::int64_t count) {
  at::Tensor values = dense(linear.weight).clone();
  values.narrow(1, first, count).zero_();
  linear.weight = DenseWeight{values};
}

void silence_rows(Linear& linear, const at::Tensor& rows) {
  at::Tensor values = dense(linear.weight).clone();
  values.index_fill_(0, rows, 0.0);
  linear.weight = DenseWeight{values};
}

TEST(KeepRows, LeavesTheValuesAndTheGridOfWhatStays) {
  const at::Tensor values = normal({6, 64}, "rows");
  const QuantScheme scheme{8, 32, ZeroPoint::kSymmetric, at::kFloat};
  const QuantizedWeight codes{
      scheme, at::arange(6 * 64, at::kByte).view({6, 64}), normal({6, 2}, "scale"), {}};
  const std::vector<std::int64_t> kept = {1, 4, 5};
  const OuterWeights left = keep_rows({DenseWeight{values.to(at::kHalf)}, values[0], codes}, kept);
  const at::Tensor index = at::tensor({1, 4, 5});
  EXPECT_TRUE(at::equal(std::get<DenseWeight>(left.embedding).values,
                        at::index_select(values.to(at::kHalf), 0, index)));
  const auto& head = std::get<QuantizedWeight>(*left.head);
  EXPECT_EQ(head.scheme, scheme);
  EXPECT_TRUE(at::equal(dense(Weight{head}), at::index_select(dense(Weight{codes}), 0, index)));
  EXPECT_TRUE(at::equal(left.final_norm, values[0]));
}

TEST(VocabularyPass, NeedsAWordOnWhatStays) {
  EXPECT_THROW(VocabularyPass(VocabularyConfig{}), UsageError);
  VocabularyConfig config;
  config.text = {"words.txt"};
  config.size = 40;
  const ModelConfig shape = small_config();
  EXPECT_EQ(VocabularyPass(config).shape_after(shape).vocabulary, 40);
  config.size = 400;
  EXPECT_EQ(VocabularyPass(config).shape_after(shape).vocabulary, shape.vocabulary);
  for (const PlannedLayer& layer : VocabularyPass(config).plan(shape)) EXPECT_FALSE(layer.changes);
}

TEST(Slicing, OfSilentNeuronsAndHeadsChangesNothing) {
  const Model model = model_with([](std::int64_t, Block& block) {
    silence_columns(block[Role::kDown], 32, 64);
    silence_columns(block[Role::kOutput], 0, 48);  // the query heads of the first KV head
  });
  Model sliced = model.successor(std::make_shared<MemoryModelStore>());
  std::vector<std::int64_t> neurons;
  for (std::int64_t j = 0; j < 160; ++j) {
    if (j < 32 || j >= 96) neurons.push_back(j);
  }
  for (std::int64_t index = 0; index < 3; ++index) {
    Block block = model.block(index);
    slice_neurons(block, neurons);
    slice_kv_groups(block, model.config(), {1});
    sliced.put_block(index, block);
  }
  EXPECT_EQ(sliced.config().ffn, 96);
  EXPECT_EQ(sliced.config().heads, 3);
  EXPECT_EQ(sliced.config().kv_heads, 1);
  const at::Tensor ids = some_ids(2, 20);
  EXPECT_LT(difference(logits(sliced, ids), logits(model, ids)), 1e-5);
}

// Channels that are always 0 weigh nothing and enter a norm as zeros: without them its root mean
// square is sqrt(64 / 48) times as large, which the norm's weight makes up for.
TEST(WidthPass, TakesSilentChannelsAwayWithoutAChange) {
  std::vector<std::int64_t> silent;
  for (std::int64_t j = 3; j < 64; j += 4) silent.push_back(j);
  const at::Tensor index = at::tensor(silent, at::kLong);
  const auto source = std::make_shared<ChangedSource>([&](std::int64_t, Block& block) {
    silence_rows(block[Role::kOutput], index);
    silence_rows(block[Role::kDown], index);
  });
  source->silent = index;
  const Model model(source);
  for (const bool refit : {false, true}) {
    WidthConfig config = width(1, 1, 0.75);
    config.refit = refit;
    const Outcome outcome = run(WidthPass(config), model);
    EXPECT_EQ(outcome.model.config().hidden, 48);
    EXPECT_TRUE(outcome.model.config().uniform());
    const at::Tensor ids = some_ids(2, 20);
    EXPECT_LT(difference(logits(outcome.model, ids), logits(model, ids)), 1e-4) << refit;
  }
}

// Every neuron stands there twice: half of them go for nothing.
TEST(WidthPass, MergesDuplicatedNeurons) {
  const Model model = model_with([](std::int64_t, Block& block) {
    for (const Role role : {Role::kGate, Role::kUp}) {
      at::Tensor values = dense(block[role].weight).clone();
      values.narrow(0, 80, 80).copy_(values.narrow(0, 0, 80));
      block[role].weight = DenseWeight{values};
    }
  });
  WidthConfig config = width(0.5, 1, 1);
  config.damping = 1e-6;
  const Outcome outcome = run(WidthPass(config), model, 48);
  EXPECT_EQ(outcome.model.config().ffn, 80);
  EXPECT_LT(distance(outcome.model, model), 1e-4);
  config.refit = false;
  EXPECT_GT(distance(run(WidthPass(config), model, 48).model, model), 1e-2);
}

TEST(WidthPass, RefittedIsNearerAndReportsWhatEachLayerLost) {
  const Model model = testing::random_model();
  WidthConfig config = width(0.6, 0.5, 1);
  config.follow = false;  // errors are told towards the target, which follow moves
  const Outcome refitted = run(WidthPass(config), model, 64);
  config.follow = true;  // a target that has moved: the result is another, still near
  EXPECT_LT(distance(run(WidthPass(config), model, 64).model, model),
            1.05 * distance(refitted.model, model));
  config.follow = false;
  config.refit = false;
  const Outcome plain = run(WidthPass(config), model, 64);
  EXPECT_EQ(refitted.model.config().ffn, 96);
  EXPECT_EQ(refitted.model.config().kv_heads, 1);
  EXPECT_EQ(refitted.model.config().heads, 3);
  EXPECT_LT(distance(refitted.model, model), distance(plain.model, model));
  ASSERT_EQ(refitted.report.changed.size(), 6U);
  for (const LayerChange& change : refitted.report.changed) {
    EXPECT_GT(change.error, 0) << change.layer;
    EXPECT_LT(change.error, change.baseline_error) << change.layer;
    EXPECT_LT(change.bytes_after, change.bytes_before) << change.layer;
  }
}

// The second block's neurons do nothing: it gives up most of them, the others keep theirs.
TEST(WidthPass, SharesOutWhatGoesByItsLoss) {
  const Model model = model_with([](std::int64_t index, Block& block) {
    if (index == 1) silence_columns(block[Role::kDown], 16, 144);
  });
  WidthConfig config = width(0.7, 1, 1);
  config.uniform = false;
  const Outcome outcome = run(WidthPass(config), model);
  const ModelConfig& shape = outcome.model.config();
  ASSERT_FALSE(shape.uniform());
  EXPECT_EQ(shape.widths_of(1).ffn, 16);
  EXPECT_EQ(shape.widths_of(0).ffn + shape.widths_of(1).ffn + shape.widths_of(2).ffn, 3 * 112);
  WidthConfig uniform = width(0.7, 1, 1);
  EXPECT_LT(distance(outcome.model, model), distance(run(WidthPass(uniform), model).model, model));
}

// Of the second block's neurons 96 do nothing and the rest matter as much as the others': it gives
// up those, and no other for nothing.
TEST(WidthPass, KeepsWhatMattersBesideNeuronsThatDoNothing) {
  const Model model = model_with([](std::int64_t index, Block& block) {
    if (index == 1) silence_columns(block[Role::kDown], 64, 96);
  });
  WidthConfig config = width(0.7, 1, 1);  // 3 x 48 go
  config.uniform = false;
  const ModelConfig shape = run(WidthPass(config), model).model.config();
  EXPECT_LE(shape.widths_of(1).ffn, 64);
  EXPECT_GE(shape.widths_of(1).ffn, 32);
  EXPECT_EQ(shape.widths_of(0).ffn + shape.widths_of(1).ffn + shape.widths_of(2).ffn, 3 * 112);
}

// 160 neurons in steps of 48: 144, 96, 48. Those that stay are multiples of the step.
TEST(WidthPass, SharesOutInStepsThatDoNotDivideTheWidth) {
  WidthConfig config = width(0.6, 1, 1);
  config.align = 48;
  config.uniform = false;
  const ModelConfig shape = run(WidthPass(config), testing::random_model()).model.config();
  std::int64_t sum = 0;
  for (std::int64_t block = 0; block < 3; ++block) {
    const std::int64_t kept = shape.widths_of(block).ffn;
    EXPECT_TRUE(kept == 160 || kept % 48 == 0) << kept;
    sum += (kept + 47) / 48;
  }
  EXPECT_EQ(sum, 3 * 2);
}

// The last block's neurons are as many and as different as the others', but their outputs are so
// small that the predictions hardly see them: what a layer loses of its own output says nothing of
// that.
TEST(WidthPass, SharesOutByWhatThePredictionsLose) {
  const Model model = model_with([](std::int64_t index, Block& block) {
    if (index != 2) return;
    Weight& down = block[Role::kDown].weight;
    down = DenseWeight{dense(down) * 0.03};
  });
  WidthConfig config = width(0.7, 1, 1);
  config.uniform = false;
  const ModelConfig shape = run(WidthPass(config), model).model.config();
  EXPECT_LT(shape.widths_of(2).ffn, 64);
  EXPECT_GT(shape.widths_of(0).ffn, 112);
  EXPECT_GT(shape.widths_of(1).ffn, 112);
}

TEST(BlockSensitivity, IsTheKlOfTheModelWithTheOtherBlockInPlace) {
  const Model model = testing::random_model();
  const at::Tensor ids = some_ids(2, 12);
  const RunContext context;
  BlockSensitivity sensitivity(model, ids, context);
  EXPECT_EQ(sensitivity.divergence_with(model.block(0)), 0);
  sensitivity.advance();
  Block narrow = model.block(1);
  slice_neurons(narrow, {0, 1, 2, 3, 4, 5, 6, 7});
  Model changed = model.successor(std::make_shared<MemoryModelStore>());
  changed.put_block(1, narrow);
  const at::Tensor p = at::log_softmax(logits(model, ids).to(at::kDouble), -1);
  const at::Tensor q = at::log_softmax(logits(changed, ids).to(at::kDouble), -1);
  const at::Tensor kl = (p.exp() * (p - q)).sum(-1).view({2, 12});
  const double expected = kl.narrow(1, 0, 11).mean().item<double>();  // the last predicts nothing
  EXPECT_GT(expected, 1e-3);
  EXPECT_NEAR(sensitivity.divergence_with(narrow), expected, 1e-4 * expected);
}

TEST(WidthPass, PlansTheShapeThatItLeaves) {
  const ModelConfig config = small_config();
  const WidthPass pass(width(0.6, 0.5, 0.75));
  const ModelConfig after = pass.shape_after(config);
  EXPECT_EQ(after.ffn, 96);
  EXPECT_EQ(after.hidden, 48);
  EXPECT_EQ(after.kv_heads, 1);
  EXPECT_EQ(after.heads, 3);
  const ModelConfig done = run(pass, testing::random_model()).model.config();
  EXPECT_EQ(done.ffn, after.ffn);
  EXPECT_EQ(done.hidden, after.hidden);
  EXPECT_EQ(done.heads, after.heads);
  EXPECT_THROW(WidthPass(width(1, 1, 1)), UsageError);
}

}  // namespace
}  // namespace attar
