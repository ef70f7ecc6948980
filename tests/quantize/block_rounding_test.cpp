#include "quantize/block_rounding.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isin.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <gtest/gtest.h>

#include <limits>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "compress/core/numerics.h"
#include "compress/core/random.h"
#include "quantize/rtn.h"
#include "quantize/tune.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;
using testing::small_config;

using Kept = std::array<at::Tensor, kRoles.size()>;

Kept kept_of(const Block& block) {
  Kept kept;
  for (const Role role : kRoles) kept[index_of(role)] = kept_positions(block[role].weight);
  return kept;
}

class BlockRoundingTest : public ::testing::Test {
 public:
  BlockRoundingTest() : model_(random_model()), plain_(model_.block(0)) {
    const RopeTable rope = rope_table(small_config(), kLength);
    ends_.inputs = states(48, "inputs");
    ends_.targets = BlockRunner(small_config(), plain_, rope).forward(ends_.inputs);
    unseen_.inputs = states(8, "unseen");
    unseen_.targets = BlockRunner(small_config(), plain_, rope).forward(unseen_.inputs);
    options_.steps = 60;
    options_.batch = 4;
    options_.held_out = 4;
    options_.learning_rate = 0.02;
  }

  // Like those of a model: most of it in a few directions.
  static at::Tensor states(std::int64_t windows, const std::string& name) {
    return at::matmul(normal({windows, kLength, 6}, name), normal({6, 64}, "directions")) +
           0.1 * normal({windows, kLength, 64}, name + " rest");
  }

  Block rounded(const QuantScheme& scheme, const Block& plain) const {
    Block block = plain;
    for (const Role role : kRoles) {
      block[role].weight = rtn_quantize(dense(plain[role].weight), scheme).weight;
    }
    return block;
  }
  Block rounded(ZeroPoint kind, int bits = 3) const {
    QuantScheme scheme;
    scheme.bits = bits;
    scheme.group_size = 32;
    scheme.zero_point = kind;
    return rounded(scheme, plain_);
  }

  BlockRounding learn(const Block& block) const {
    return learn_rounding(small_config(), block, plain_, kept_of(plain_), ends_, options_, {});
  }

  // Of windows that nobody learnt from, by token.
  at::Tensor errors(const Block& block) const {
    const BlockRunner runner(small_config(), block, rope_table(small_config(), kLength));
    return (runner.forward(unseen_.inputs) - unseen_.targets).square().sum(2);
  }
  double error(const Block& block) const { return errors(block).sum().item<double>(); }

  static constexpr std::int64_t kLength = 16;
  Model model_;
  Block plain_;
  BlockEnds ends_, unseen_;
  BlockRoundingOptions options_;
};

TEST_F(BlockRoundingTest, LowersTheErrorOnUnseenInputsOnEveryKindOfGrid) {
  for (const ZeroPoint kind : {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    const Block start = rounded(kind);
    const BlockRounding found = learn(start);
    EXPECT_FALSE(found.kept_start);
    EXPECT_GT(found.changed, 0);
    EXPECT_LT(error(found.block), 0.6 * error(start)) << to_string(kind);
    for (const Role role : kRoles) {
      EXPECT_NO_THROW(check(found.block[role].weight, "learnt"));
      const auto& weight = std::get<QuantizedWeight>(found.block[role].weight);
      EXPECT_TRUE(at::equal(weight.scale, weight.scale.to(at::kHalf).to(at::kFloat)));
      EXPECT_EQ(weight.scheme, std::get<QuantizedWeight>(start[role].weight).scheme);
    }
  }
}

// Rounding alone is worth most of it; scales that may not move do not.
TEST_F(BlockRoundingTest, ScalesStayWhenTheyAreTold) {
  const Block start = rounded(ZeroPoint::kInteger);
  options_.scales = false;
  const BlockRounding found = learn(start);
  EXPECT_LT(error(found.block), 0.7 * error(start));
  for (const Role role : kRoles) {
    EXPECT_TRUE(at::equal(std::get<QuantizedWeight>(found.block[role].weight).scale,
                          std::get<QuantizedWeight>(start[role].weight).scale));
  }
}

TEST_F(BlockRoundingTest, WithoutALearningRateTheBlockIsWhatCameIn) {
  options_.learning_rate = 0;
  Block start = rounded(ZeroPoint::kInteger);
  // As GPTQ may leave them: not every code is the nearest.
  at::Tensor codes = std::get<QuantizedWeight>(start[Role::kUp].weight).codes;
  codes.copy_((codes + 1).clamp(0, 7));
  const BlockRounding found = learn(start);
  EXPECT_TRUE(found.kept_start);
  EXPECT_EQ(found.changed, 0);
  EXPECT_EQ(found.before, found.after);
}

TEST_F(BlockRoundingTest, ThreadsChangeNoBit) {
  const Block start = rounded(ZeroPoint::kInteger);
  set_threads(1);
  const BlockRounding one = learn(start);
  set_threads(2);
  const BlockRounding two = learn(start);
  EXPECT_EQ(one.after, two.after);
  for (const Role role : kRoles) {
    EXPECT_TRUE(at::equal(dense(one.block[role].weight), dense(two.block[role].weight)));
  }
}

// What is wanted of a token that does not count changes no bit, and `before` is the weighted error.
TEST_F(BlockRoundingTest, TokensCountAsTheirWeightsSay) {
  const Block start = rounded(ZeroPoint::kInteger);
  ends_.weights = normal({kLength}, "weights").abs();
  ends_.weights[5] = 0;
  const BlockRounding found = learn(start);
  ends_.targets.select(1, 5).add_(3);
  const BlockRounding same = learn(start);
  ends_.weights[5] = 1;
  const BlockRounding other = learn(start);
  const auto up = [](const BlockRounding& r) { return dense(r.block[Role::kUp].weight); };
  EXPECT_TRUE(at::equal(up(found), up(same)));
  EXPECT_FALSE(at::equal(up(found), up(other)));

  const BlockRunner runner(small_config(), start, rope_table(small_config(), kLength));
  const std::vector<bool> judges = held_out_windows(48, options_.held_out);
  double error = 0, size = 0;
  for (std::int64_t w = 0; w < 48; ++w) {
    if (!judges[static_cast<std::size_t>(w)]) continue;
    const auto weighted = [&](const at::Tensor& of) {
      return ((of - ends_.targets[w]).square().sum(1) * ends_.weights).sum().item<double>();
    };
    error += weighted(runner.forward(ends_.inputs.narrow(0, w, 1))[0]);
    size += weighted(ends_.inputs[w]);
  }
  EXPECT_NEAR(other.before, error / size, 1e-5 * error / size);
}

TEST_F(BlockRoundingTest, ZerosOfAMaskStay) {
  for (const Role role : kRoles) {
    const at::Tensor values = dense(plain_[role].weight);
    plain_[role].weight = to_sparse(at::where(values.abs() < 0.05, 0.0f, values));
  }
  Block start = plain_;
  QuantScheme scheme;
  scheme.bits = 3;
  scheme.group_size = 32;
  for (const Role role : kRoles) {
    start[role].weight = rtn_quantize(dense(plain_[role].weight), scheme).weight;
  }
  const BlockRounding found = learn(start);
  ASSERT_FALSE(found.kept_start);
  for (const Role role : kRoles) {
    const at::Tensor gone = kept_positions(plain_[role].weight).logical_not();
    ASSERT_GT(gone.sum().item<std::int64_t>(), 0);
    EXPECT_EQ(dense(found.block[role].weight).masked_select(gone).abs().max().item<float>(), 0.0f);
  }
}

TEST_F(BlockRoundingTest, CodesOfTablesAndNumberFormatsLearnToo) {
  for (const BlockGrid grid : {BlockGrid::kIq4Nl, BlockGrid::kMxfp4, BlockGrid::kFp8}) {
    const QuantScheme scheme = block_scheme(grid);
    const Block start = rounded(scheme, plain_);
    const BlockRounding found = learn(start);
    EXPECT_FALSE(found.kept_start);
    EXPECT_EQ(found.learnt.size(), kRoles.size());
    EXPECT_LT(error(found.block), 0.5 * error(start)) << to_string(grid);
    for (const Role role : kRoles) {
      EXPECT_NO_THROW(check(found.block[role].weight, "learnt"));
      const auto& weight = std::get<QuantizedWeight>(found.block[role].weight);
      const auto& old = std::get<QuantizedWeight>(start[role].weight);
      EXPECT_EQ(at::equal(weight.scale, old.scale), grid != BlockGrid::kIq4Nl);
      if (scheme.table()) {
        const at::Tensor codes =
            at::tensor({1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241});
        EXPECT_TRUE(at::isin(weight.codes, codes).all().item<bool>());
      }
    }
  }
}

TEST_F(BlockRoundingTest, ScalesOfSuperBlocksStay) {
  ModelConfig config = small_config();
  config.ffn = 256;
  const Model model(std::make_shared<testing::RandomSource>(config));
  const Block plain = model.block(0);
  const BlockRunner runner(config, plain, rope_table(config, kLength));
  ends_.targets = runner.forward(ends_.inputs);
  Block start = plain;
  start[Role::kDown].weight =
      rtn_quantize(dense(plain[Role::kDown].weight), block_scheme(BlockGrid::kQ3K)).weight;
  const BlockRounding found =
      learn_rounding(config, start, plain, kept_of(plain), ends_, options_, {});
  EXPECT_LT(found.after, 0.8 * found.before);
  EXPECT_TRUE(at::equal(std::get<QuantizedWeight>(found.block[Role::kDown].weight).scale,
                        std::get<QuantizedWeight>(start[Role::kDown].weight).scale));
}

TEST_F(BlockRoundingTest, StepsThatAreNotFiniteAreCounted) {
  const Block start = rounded(ZeroPoint::kInteger);
  ends_.targets = ends_.targets.clone();
  ends_.targets[0][0][0] = std::numeric_limits<float>::infinity();  // window 0 does not judge
  const BlockRounding found = learn(start);
  EXPECT_GT(found.nonfinite_steps, 0);
  EXPECT_LT(error(found.block), error(start));
}

TEST_F(BlockRoundingTest, AsksForTwoWindows) {
  ends_.inputs = ends_.inputs.narrow(0, 0, 1);
  ends_.targets = ends_.targets.narrow(0, 0, 1);
  EXPECT_THROW(learn(rounded(ZeroPoint::kInteger)), BadInput);
}

}  // namespace
}  // namespace attar
