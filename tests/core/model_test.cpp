#include "compress/core/model.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;
using testing::small_config;

at::Tensor values(const Weight& weight) { return std::get<DenseWeight>(weight).values; }

// The block with the first `count` neurons only.
Block narrowed(Block block, std::int64_t count) {
  for (const Role role : {Role::kGate, Role::kUp}) {
    block[role].weight = DenseWeight{values(block[role].weight).narrow(0, 0, count).clone()};
  }
  block[Role::kDown].weight =
      DenseWeight{values(block[Role::kDown].weight).narrow(1, 0, count).clone()};
  return block;
}

TEST(Model, ASuccessorIsTheSameModelUntilSomethingIsWritten) {
  const Model base = random_model();
  Model next = base.successor(std::make_shared<MemoryModelStore>());
  EXPECT_FALSE(next.changed(1));
  EXPECT_TRUE(
      at::equal(values(next.block(1)[Role::kUp].weight), values(base.block(1)[Role::kUp].weight)));
  next.put_block(1, narrowed(next.block(1), 96));
  EXPECT_TRUE(next.changed(1));
  EXPECT_FALSE(base.changed(1));
  EXPECT_EQ(values(base.block(1)[Role::kUp].weight).size(0), 160);
  EXPECT_FALSE(next.original().changed(1));
}

TEST(Model, TakesItsWidthsFromItsBlocks) {
  Model model = random_model();
  model.put_block(0, narrowed(model.block(0), 96));
  EXPECT_FALSE(model.config().uniform());
  EXPECT_EQ(model.config().widths_of(0).ffn, 96);
  EXPECT_EQ(model.config().widths_of(1).ffn, 160);
  EXPECT_EQ(model.config().ffn, 160) << "the largest";
  for (const std::int64_t i : {1, 2}) model.put_block(i, narrowed(model.block(i), 96));
  EXPECT_TRUE(model.config().uniform());
  EXPECT_EQ(model.config().ffn, 96);
}

TEST(Model, KeepsTheBlocksThatItIsTold) {
  const Model base = random_model();
  Model shallow = base.successor(std::make_shared<MemoryModelStore>());
  shallow.keep_blocks({0, 2});
  EXPECT_EQ(shallow.config().layers, 2);
  EXPECT_EQ(shallow.source_block(1), 2);
  EXPECT_TRUE(at::equal(values(shallow.block(1)[Role::kDown].weight),
                        values(base.block(2)[Role::kDown].weight)));
  EXPECT_THROW(shallow.block(2), BadInput);
  // Once more on top: numbers count blocks of the model below.
  Model shallower = shallow.successor(std::make_shared<MemoryModelStore>(), {1});
  EXPECT_EQ(shallower.source_block(0), 2);
  EXPECT_THROW(shallow.keep_blocks({}), BadInput);
}

TEST(Model, TakesVocabularyHiddenSizeAndTyingFromTheOuterWeights) {
  Model model = random_model();
  const at::Tensor rows = values(model.embedding()).narrow(0, 0, 50).clone();
  model.put_outer({DenseWeight{rows}, model.final_norm(), DenseWeight{rows * 2}});
  EXPECT_EQ(model.config().vocabulary, 50);
  EXPECT_FALSE(model.config().tied_head);
  EXPECT_TRUE(model.outer_changed());
  EXPECT_TRUE(at::equal(values(model.head()), rows * 2));
  model.put_outer({DenseWeight{rows}, model.final_norm(), std::nullopt});
  EXPECT_TRUE(model.config().tied_head);
  EXPECT_TRUE(at::equal(values(model.head()), rows));
  EXPECT_THROW(model.put_outer({DenseWeight{rows}, rows[0].narrow(0, 0, 3), std::nullopt}),
               BadInput);
}

TEST(Model, ASuccessorOverAFilledStoreHasItsShape) {
  const Model base = random_model();
  const auto store = std::make_shared<MemoryModelStore>();
  {
    Model written = base.successor(store, {1, 2});
    for (const std::int64_t i : {0, 1}) written.put_block(i, narrowed(written.block(i), 64));
    const at::Tensor rows = values(base.embedding()).narrow(0, 0, 40).clone();
    written.put_outer({DenseWeight{rows}, base.final_norm(), std::nullopt});
  }
  const Model restored = base.successor(store, {1, 2});
  EXPECT_EQ(restored.config().layers, 2);
  EXPECT_EQ(restored.config().ffn, 64);
  EXPECT_EQ(restored.config().vocabulary, 40);
}

TEST(Model, KnowsWhichTokensItsRowsStandFor) {
  ModelConfig config = small_config();
  config.bos = 5;
  config.eos = 40;
  const Model base(std::make_shared<testing::RandomSource>(config));
  EXPECT_TRUE(base.source_tokens().empty());
  Model some = base.successor(std::make_shared<MemoryModelStore>());
  some.keep_tokens({3, 5, 7, 40});
  EXPECT_EQ(some.source_tokens(), (std::vector<std::int64_t>{3, 5, 7, 40}));
  EXPECT_EQ(some.config().bos, 1);
  EXPECT_EQ(some.config().eos, 3);
  some.put_outer({DenseWeight{values(base.embedding()).narrow(0, 0, 4).clone()}, base.final_norm(),
                  std::nullopt});
  // Once more on top: numbers count tokens of the model below, and are told as the source's.
  const auto store = std::make_shared<MemoryModelStore>();
  Model fewer = some.successor(store);
  EXPECT_EQ(fewer.source_tokens(), some.source_tokens());
  fewer.keep_tokens({1, 2});
  EXPECT_EQ(fewer.source_tokens(), (std::vector<std::int64_t>{5, 7}));
  EXPECT_EQ(fewer.config().bos, 0);
  EXPECT_EQ(fewer.config().eos, std::nullopt);
  const Model restored = some.successor(store, {}, fewer.source_tokens());
  EXPECT_EQ(restored.source_tokens(), fewer.source_tokens());
  EXPECT_EQ(restored.config().bos, 0);
  EXPECT_THROW(some.keep_tokens({4}), BadInput) << "there are four rows";
  EXPECT_THROW(some.keep_tokens({}), BadInput);
}

TEST(Model, RefusesABlockWhoseLayersDoNotFitOneAnother) {
  Model model = random_model();
  Block block = model.block(0);
  block[Role::kDown].weight = narrowed(block, 96)[Role::kDown].weight;
  EXPECT_THROW(model.put_block(0, block), BadInput);
}

// Neurons whose down columns are zero do nothing: a block without them computes the same.
TEST(BlockRunner, RunsABlockOfItsOwnWidths) {
  const ModelConfig config = small_config();
  Model model = random_model();
  Block wide = model.block(0);
  values(wide[Role::kDown].weight).narrow(1, 96, 64).zero_();
  const RopeTable rope = rope_table(config, 12);
  const at::Tensor x = normal({2, 12, config.hidden}, "x");
  const at::Tensor expected = BlockRunner(config, wide, rope).forward(x);
  const Block narrow = narrowed(wide, 96);
  EXPECT_LT((BlockRunner(config, narrow, rope).forward(x) - expected).abs().max().item<float>(),
            1e-5);
  EXPECT_LT((block_forward(config, narrow, rope, x) - expected).abs().max().item<float>(), 1e-5);
}

}  // namespace
}  // namespace attar
