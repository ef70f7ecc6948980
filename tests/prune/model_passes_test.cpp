// The passes over whole models, on small random ones whose answer is known.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "compress/calibrate/block_sensitivity.h"
#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "prune/channels.h"
#include "prune/depth.h"
#include "prune/slicing.h"
#include "prune/structured_obs.h"
#include "prune/vocabulary.h"
#include "prune/width.h"
#include "tests/prune/matrices.h"

namespace attar {
namespace {

using testing::normal;
using testing::small_config;

// A random model that a test changes before it is read.
class ChangedSource final : public testing::RandomSource {
 public:
  using Change = std::function<void(std::int64_t index, Block& block)>;
  explicit ChangedSource(Change change, ModelConfig config = small_config())
      : RandomSource(std::move(config)), change_(std::move(change)) {}
  Block read_block(std::int64_t index) const override {
    Block block = RandomSource::read_block(index);
    change_(index, block);
    return block;
  }
  Weight read_embedding() const override {
    at::Tensor values = dense(RandomSource::read_embedding());
    if (silent.defined()) values.index_fill_(1, silent, 0.0);
    return DenseWeight{values};
  }
  Weight read_head() const override { return read_embedding(); }

  at::Tensor silent;  // channels that nothing writes

 private:
  Change change_;
};

Model model_with(ChangedSource::Change change) {
  return Model(std::make_shared<ChangedSource>(std::move(change)));
}

at::Tensor some_ids(std::int64_t sequences, std::int64_t length) {
  at::Tensor ids = at::zeros({sequences, length}, at::kLong);
  const CounterRandom random(5, "ids");
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.data_ptr<std::int64_t>()[i] =
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(i), 101));
  }
  return ids;
}

at::Tensor logits(const Model& model, const at::Tensor& ids) {
  const RopeTable rope = rope_table(model.config(), ids.size(1));
  at::Tensor hidden = embed(model.embedding(), ids);
  for (std::int64_t index = 0; index < model.config().layers; ++index) {
    hidden = BlockRunner(model.config().of_block(index), model.block(index), rope).forward(hidden);
  }
  hidden = rms_norm(hidden, model.final_norm(), model.config().norm_eps);
  return at::mm(hidden.flatten(0, 1), dense(model.head()).t());
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

double distance(const Model& changed, const Model& model) {
  const at::Tensor ids = some_ids(4, 32);
  const at::Tensor a = logits(changed, ids), b = logits(model, ids);
  return ((a - b).square().sum() / b.square().sum()).item<double>();
}

struct Outcome {
  Model model;
  PassReport report;
};

Outcome run(const ModelPass& pass, const Model& model, std::int64_t sequences = 24) {
  const CalibrationTokens tokens = calibration_of(some_ids(sequences, 48));
  Outcome outcome{model.successor(std::make_shared<MemoryModelStore>()), {}};
  const RunContext context;
  ModelWork work{model, outcome.model, model, &tokens, nullptr, {}, outcome.report, context};
  pass.run(work);
  return outcome;
}

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

// The last block's neurons are as many and as different as the others', but their outputs are so small
// that the predictions hardly see them: what a layer loses of its own output says nothing of that.
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

TEST(DepthPass, KeepsAPatchOnlyWhereItHelps) {
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
