#include "compress/core/forward.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "compress/core/levels.h"
#include "compress/core/numerics.h"
#include "tests/support/plain_block.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;
using testing::small_config;
using testing::Variety;

class BlockForward : public ::testing::TestWithParam<Variety> {
 protected:
  ModelConfig config = small_config(GetParam());
  RopeTable rope = rope_table(config, 64);
  Block block = random_model(GetParam()).block(1);
  at::Tensor x = normal({3, 21, config.hidden}, "x");
};

// Plain operations in double, the runner and the differentiable path are one function.
TEST_P(BlockForward, EqualsPlainOperationsWithGradientsAndWithout) {
  const at::Tensor fast = BlockRunner(config, block, rope).forward(x);
  at::Tensor leaf = x.clone().requires_grad_(true);
  const at::Tensor learning = block_forward(config, block, rope, leaf);
  EXPECT_TRUE(learning.requires_grad());
  const at::Tensor slow = testing::plain_forward(config, testing::plain_block(block, at::kDouble),
                                                 rope, x.to(at::kDouble));
  EXPECT_LE((fast - slow).abs().max().item<double>(), 2e-5);
  EXPECT_LE((learning.detach() - slow).abs().max().item<double>(), 2e-5);
}

TEST_P(BlockForward, SequencesOfABatchDoNotSeeEachOther) {
  const BlockRunner runner(config, block, rope);
  const at::Tensor together = runner.forward(x);
  for (std::int64_t b = 0; b < x.size(0); ++b) {
    EXPECT_TRUE(at::equal(runner.forward(x.narrow(0, b, 1)), together.narrow(0, b, 1))) << b;
  }
}

TEST_P(BlockForward, ACacheChangesNoBit) {
  const BlockRunner runner(config, block, rope);
  const at::Tensor one = x.narrow(0, 0, 1);
  const at::Tensor whole = runner.forward(one);
  for (const std::int64_t cut : {1, 7, 20}) {
    KeyValues cache{normal({32, config.kv_width()}, "junk"), normal({32, config.kv_width()}, "j2")};
    const at::Tensor first = runner.forward(one.narrow(1, 0, cut), &cache);
    const at::Tensor second = runner.forward(one.narrow(1, cut, 21 - cut), &cache);
    EXPECT_EQ(cache.length, 21);
    EXPECT_TRUE(at::equal(at::cat({first, second}, 1), whole)) << cut;
  }
}

TEST_P(BlockForward, BranchesEqualContinuationsReadAlone) {
  const BlockRunner runner(config, block, rope);
  KeyValues prefix{at::empty({64, config.kv_width()}, at::kFloat),
                   at::empty({64, config.kv_width()}, at::kFloat)};
  runner.forward(x.narrow(0, 0, 1), &prefix);
  const std::array<std::int64_t, 3> lengths = {4, 1, 9};
  const at::Tensor tails = normal({1, 14, config.hidden}, "tails");
  const at::Tensor side_by_side = runner.forward_branches(tails, prefix, lengths);
  std::int64_t row = 0;
  for (const std::int64_t length : lengths) {
    KeyValues copy{prefix.keys.clone(), prefix.values.clone(), prefix.length};
    const at::Tensor alone = runner.forward(tails.narrow(1, row, length), &copy);
    EXPECT_TRUE(at::equal(alone, side_by_side.narrow(1, row, length))) << length;
    row += length;
  }
}

TEST_P(BlockForward, ThreadsChangeNoBit) {
  const BlockRunner runner(config, block, rope);
  set_threads(1);
  const at::Tensor one = runner.forward(x);
  set_threads(2);
  EXPECT_TRUE(at::equal(runner.forward(x), one));
}

TEST_P(BlockForward, StepsMakeTheWholeAndPreparingAgainTakesAChangeOver) {
  BlockRunner runner(config, block, rope);
  const at::Tensor h = runner.attended(x).clone();
  if (attends(block)) {
    const at::Tensor mixed = runner.attention(runner.attention_input(x), nullptr);
    EXPECT_TRUE(at::equal(runner.add_attention(x, mixed), h));
  }
  EXPECT_TRUE(at::equal(runner.add_mlp(h, runner.gated(runner.mlp_input(h))), runner.forward(x)));
  Block changed = block;
  for (const Role role : roles_of(block)) {
    changed[role].weight = DenseWeight{dense(block[role].weight) * 0.5};
    runner.prepare(changed, site_of(role));
    EXPECT_TRUE(at::equal(runner.forward(x), BlockRunner(config, changed, rope).forward(x)))
        << to_string(role);
  }
}

// Enough rows for the second half of a block to run for a few of them at a time.
TEST_P(BlockForward, InPlaceAndInAnotherBlocksMemoryItIsTheSame) {
  const at::Tensor rows = normal({4, 50, config.hidden}, "rows");
  const at::Tensor expected = BlockRunner(config, block, rope).forward(rows);
  BlockRunner runner(config, random_model(GetParam()).block(0), rope);
  runner.take(block);
  at::Tensor moved = rows.clone();
  runner.advance(moved);
  EXPECT_TRUE(at::equal(moved, expected));
  const at::Tensor h = runner.attended(rows);
  EXPECT_TRUE(at::equal(runner.add_mlp(h, runner.gated(runner.mlp_input(h))), expected));
}

// A layer of W8A8.
QuantizedWeight eight_bits(std::int64_t out, std::int64_t in, const std::string& name) {
  QuantizedWeight weight;
  weight.scheme = {8, 0, ZeroPoint::kSymmetric, at::kFloat};
  weight.scheme.activation_bits = 8;
  const at::Tensor values = normal({out, in}, name, 1 / std::sqrt(static_cast<double>(in)));
  weight.scale = values.abs().amax(1, true) / 127.5;
  weight.codes = ((values / weight.scale).round().clamp(-128, 127) + 128).to(at::kByte);
  return weight;
}

TEST(RoundedActivations, EnterEveryProductOfALayerThatAsksForThem) {
  const Weight weight = eight_bits(48, 64, "w");
  const at::Tensor x = normal({3, 7, 64}, "x");
  // The codes in float32, as the formula says: the largest value of a token lies on a tie.
  const at::Tensor step = x.abs().amax(-1, true) / 127.5;
  const at::Tensor codes = (x / step).round().clamp(-128, 127).to(at::kDouble);
  const at::Tensor expected = at::matmul(codes * step, dense(weight).to(at::kDouble).t());
  const at::Tensor prepared = PreparedWeight(weight).multiply_into(at::empty({3, 7, 48}), x);
  EXPECT_LT((prepared - expected).abs().max().item<double>(), 1e-5);
  const PreparedWeight as_codes(weight, Arithmetic::kQuantized);
  EXPECT_NE(as_codes.codes(), nullptr);
  EXPECT_LT(
      (as_codes.multiply_into(at::empty({3, 7, 48}), x) - expected).abs().max().item<double>(),
      1e-5);
  EXPECT_LT((Linear{weight, {}}.forward(x) - expected).abs().max().item<double>(), 1e-5);
  EXPECT_GT(
      (Linear{DenseWeight{dense(weight)}, {}}.forward(x) - expected).abs().max().item<double>(),
      1e-4);
  // Two that share an input must agree.
  const Weight plain = DenseWeight{normal({8, 64}, "plain")};
  PreparedWeight both;
  EXPECT_THROW(both.assign({{&weight, {}}, {&plain, {}}}), std::exception);
}

// Levels of FP8, beside weights of FP8.
TEST(RoundedActivations, AreNumbersOfFp8BesideWeightsOfFp8) {
  QuantScheme scheme = block_scheme(BlockGrid::kFp8);
  scheme.activation_bits = 8;
  const at::Tensor values = normal({48, 64}, "w", 0.125);
  const QuantizedWeight codes = quantize_to_grid(values, choose_grid(values, scheme));
  const Weight weight = codes;
  const at::Tensor x = normal({3, 7, 64}, "x");
  const at::Tensor step = x.abs().amax(-1, true) / 448;
  at::Tensor rounded = (x / step).contiguous();
  const Levels& levels = *levels_of(BlockGrid::kFp8);
  float* each = rounded.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < rounded.numel(); ++i)
    each[i] = levels.value(levels.nearest(each[i]));
  const at::Tensor expected =
      at::matmul((rounded * step).to(at::kDouble), dense(weight).to(at::kDouble).t());
  for (const Arithmetic arithmetic : {Arithmetic::kExact, Arithmetic::kQuantized}) {
    const PreparedWeight prepared(weight, arithmetic);
    EXPECT_LT(
        (prepared.multiply_into(at::empty({3, 7, 48}), x) - expected).abs().max().item<double>(),
        1e-5);
  }
  // Rounding to integers beside others is another thing.
  const Weight integers = eight_bits(8, 64, "integers");
  PreparedWeight both;
  EXPECT_THROW(both.assign({{&weight, {}}, {&integers, {}}}), std::exception);
}

TEST(RoundedActivations, LetGradientsThroughAsIfNothingWereRounded) {
  const at::Tensor x = normal({5, 64}, "x").requires_grad_(true);
  const Weight weight = eight_bits(48, 64, "w");
  Linear{weight, {}}.forward(x).sum().backward();
  const at::Tensor expected = dense(weight).sum(0).expand({5, 64});
  EXPECT_LT((x.grad() - expected).abs().max().item<double>(), 1e-4);
}

// The fused kernels know nothing of rounding: a block that rounds does not run on them.
TEST(RoundedActivations, AreTheSameInEveryWayThatABlockRuns) {
  const ModelConfig config = small_config();
  const RopeTable rope = rope_table(config, 64);
  Block block = random_model().block(1);
  const at::Tensor x = normal({4, 50, config.hidden}, "x");
  const at::Tensor plain = BlockRunner(config, block, rope).forward(x);
  for (const Role role : kRoles) {
    const WeightShape shape = shape_of(block[role].weight);
    block[role].weight = eight_bits(shape.out, shape.in, std::string(to_string(role)));
  }
  const BlockRunner runner(config, block, rope);
  const at::Tensor whole = runner.forward(x);
  at::Tensor moved = x.clone();
  runner.advance(moved);
  EXPECT_TRUE(at::equal(moved, whole));
  for (std::int64_t b = 0; b < x.size(0); ++b) {
    EXPECT_TRUE(at::equal(runner.forward(x.narrow(0, b, 1)), whole.narrow(0, b, 1))) << b;
  }
  // Another order of sums flips a code here and there, by one step of 1/127: products of codes with
  // codes, and those of plain matrices.
  const BlockRunner codes(config, block, rope, std::make_shared<ForwardMemory>(),
                          Arithmetic::kQuantized);
  for (const at::Tensor& other : {codes.forward(x), block_forward(config, block, rope, x)}) {
    EXPECT_LT(((other - whole).norm() / (other - x).norm()).item<double>(), 2e-3);
  }
  EXPECT_GT((plain - whole).norm().item<double>(), 0);
}

class CodedCache : public ::testing::TestWithParam<std::tuple<Variety, CacheType>> {
 protected:
  ModelConfig config = small_config(std::get<0>(GetParam()));
  RopeTable rope = rope_table(config, 64);
  Block block = random_model(std::get<0>(GetParam())).block(1);
  at::Tensor x = normal({3, 21, config.hidden}, "x");

  BlockRunner runner(CacheType type) const {
    return BlockRunner(config, block, rope, std::make_shared<ForwardMemory>(), Arithmetic::kExact,
                       type);
  }
  BlockRunner runner() const { return runner(std::get<1>(GetParam())); }
};

// A token's codes are its own: no way of reading a sequence changes a bit of what follows.
TEST_P(CodedCache, AtOnceInPiecesTokenByTokenAndInABatchItIsTheSame) {
  const BlockRunner coded = runner();
  const at::Tensor together = coded.forward(x);
  at::Tensor moved = x.clone();
  coded.advance(moved);
  EXPECT_TRUE(at::equal(moved, together));
  for (std::int64_t b = 0; b < x.size(0); ++b) {
    const at::Tensor one = x.narrow(0, b, 1), whole = together.narrow(0, b, 1);
    EXPECT_TRUE(at::equal(coded.forward(one), whole)) << b;
    for (const std::int64_t cut : {1, 7, 20}) {
      KeyValues cache;
      coded.reserve(cache, cut);
      const at::Tensor first = coded.forward(one.narrow(1, 0, cut), &cache);
      coded.reserve(cache, 21);
      const at::Tensor second = coded.forward(one.narrow(1, cut, 21 - cut), &cache);
      EXPECT_EQ(cache.length, 21);
      EXPECT_TRUE(at::equal(at::cat({first, second}, 1), whole)) << cut;
    }
    KeyValues cache;
    std::vector<at::Tensor> steps;
    for (std::int64_t t = 0; t < 21; ++t) {
      coded.reserve(cache, t + 1);
      steps.push_back(coded.forward(one.narrow(1, t, 1), &cache));
    }
    EXPECT_TRUE(at::equal(at::cat(steps, 1), whole));
  }
  set_threads(1);
  const at::Tensor single = coded.forward(x);
  set_threads(2);
  EXPECT_TRUE(at::equal(coded.forward(x), single));
}

TEST_P(CodedCache, BranchesEqualContinuationsReadAlone) {
  const BlockRunner coded = runner();
  KeyValues prefix;
  coded.reserve(prefix, 64);
  coded.forward(x.narrow(0, 0, 1), &prefix);
  const std::array<std::int64_t, 3> lengths = {4, 1, 9};
  const at::Tensor tails = normal({1, 14, config.hidden}, "tails");
  const at::Tensor side_by_side = coded.forward_branches(tails, prefix, lengths);
  std::int64_t row = 0;
  for (const std::int64_t length : lengths) {
    KeyValues copy{prefix.keys.clone(), prefix.values.clone(), prefix.length};
    const at::Tensor alone = coded.forward(tails.narrow(1, row, length), &copy);
    EXPECT_TRUE(at::equal(alone, side_by_side.narrow(1, row, length))) << length;
    row += length;
  }
}

// A bias a hundred times as large as the keys differ by, as Qwen2's models have it: it is no part
// of the codes, so it costs nothing. (Coded with the rest, 8 bits miss by 0.05, 4 bits by 0.5.)
TEST_P(CodedCache, IsNearTheFloatsEvenUnderALargeKeyBias) {
  const bool biased = std::get<0>(GetParam()) == Variety::kBiased;
  if (biased) block[Role::kKey].bias = normal({config.kv_width()}, "large", 100.0);
  if (biased) block[Role::kQuery].bias = at::Tensor();
  const at::Tensor exact = runner(CacheType::kFloat32).forward(x) - x;
  const double error = ((runner().forward(x) - x) - exact).norm().item<double>();
  const bool eight = std::get<1>(GetParam()) == CacheType::kCodes8;
  const double relative = error / exact.norm().item<double>();
  EXPECT_LT(relative, eight ? 0.004 : 0.07);
  EXPECT_EQ(relative > 1e-5, attends(block));
}

TEST(CacheTypes, AreOf32And8And4Bits) {
  EXPECT_EQ(cache_type(32, "x"), CacheType::kFloat32);
  EXPECT_EQ(cache_type(8, "x"), CacheType::kCodes8);
  EXPECT_EQ(cache_type(4, "x"), CacheType::kCodes4);
  EXPECT_THROW(cache_type(16, "x"), UsageError);
}

INSTANTIATE_TEST_SUITE_P(ModelsAndBits, CodedCache,
                         ::testing::Combine(testing::all_varieties(),
                                            ::testing::Values(CacheType::kCodes8,
                                                              CacheType::kCodes4)),
                         [](const auto& info) {
                           return testing::name_of(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) == CacheType::kCodes8 ? "8" : "4");
                         });
INSTANTIATE_TEST_SUITE_P(Models, BlockForward, testing::all_varieties(),
                         [](const auto& info) { return testing::name_of(info.param); });

// d loss / d weight against a central difference, in the direction of a random matrix.
TEST(BlockForward, GradientsEqualFiniteDifferences) {
  const ModelConfig config = small_config();
  const RopeTable rope = rope_table(config, 16);
  Block block = random_model().block(0);
  const at::Tensor x = normal({1, 9, config.hidden}, "x");
  const at::Tensor probe = normal({1, 9, config.hidden}, "probe");
  for (const Role role : {Role::kQuery, Role::kOutput, Role::kGate, Role::kDown}) {
    const at::Tensor start = dense(block[role].weight).clone();
    const at::Tensor direction = normal(start.sizes().vec(), "direction");
    const auto loss_at = [&](double step) {
      Block moved = block;
      moved[role].weight = DenseWeight{start + step * direction};
      return (block_forward(config, moved, rope, x) * probe).sum().item<double>();
    };
    Block leaf = block;
    at::Tensor variable = start.clone().requires_grad_(true);
    leaf[role].weight = DenseWeight{variable};
    (block_forward(config, leaf, rope, x) * probe).sum().backward();
    const double slope = (variable.grad() * direction).sum().item<double>();
    const double difference = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
    EXPECT_NEAR(slope, difference, 2e-2 * std::max(1.0, std::abs(slope))) << to_string(role);
  }
}

TEST(Rope, TurnsByPositionTimesFrequency) {
  ModelConfig config = small_config();
  config.head_dim = 4;
  config.rope.theta = 100;
  const RopeTable table = rope_table(config, 8);
  EXPECT_NEAR(table.cos[3][0].item<double>(), std::cos(3.0), 1e-6);
  EXPECT_NEAR(table.sin[3][1].item<double>(), std::sin(3.0 / 10), 1e-6);
}

TEST(Rope, Llama3LeavesShortWavesAndStretchesLongOnes) {
  ModelConfig config = small_config();
  config.head_dim = 64;
  config.rope = {.theta = 500000, .scaling = RopeScaling::kLlama3, .factor = 32};
  const RopeTable scaled = rope_table(config, 2);
  config.rope.scaling = RopeScaling::kNone;
  const RopeTable plain = rope_table(config, 2);
  const auto angle = [](const RopeTable& t, std::int64_t j) {
    return std::asin(t.sin[1][j].item<double>());
  };
  EXPECT_DOUBLE_EQ(angle(scaled, 1), angle(plain, 1));
  EXPECT_NEAR(angle(plain, 31) / angle(scaled, 31), 32, 1e-3);
  // Wave length of j = 16: 2 pi 500000^(1/2) = 4443, inside the ramp from 2048 to 8192.
  const double wave = 2 * M_PI * std::sqrt(500000.0), share = (8192 / wave - 1) / 3;
  const double expected = ((1 - share) / 32 + share) / std::sqrt(500000.0);
  EXPECT_NEAR(angle(scaled, 16), expected, 1e-8);
}

TEST(Embed, TakesRowsOfEveryKindOfWeight) {
  const Weight plain = DenseWeight{normal({11, 8}, "e").to(at::kHalf)};
  const at::Tensor ids = at::arange(6, at::kLong).reshape({2, 3}) + 4;
  EXPECT_TRUE(at::equal(embed(plain, ids)[1][2], dense(plain)[9]));
  QuantizedWeight q;
  q.scheme = {8, 0, ZeroPoint::kSymmetric, at::kHalf};
  q.codes = at::arange(88, at::kByte).reshape({11, 8});
  q.scale = normal({11, 1}, "s");
  EXPECT_TRUE(at::equal(embed(q, ids)[0][1], dense(Weight(q))[5]));
}

}  // namespace
}  // namespace attar
