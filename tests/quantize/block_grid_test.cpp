// GPTQ on the grids of GGUF's searched block types.
#include "compress/core/block_grid.h"

#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/formats/gguf_blocks.h"
#include "quantize/gptq.h"
#include "quantize/rtn.h"
#include "quantize/scheme_rules.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

const BlockGrid kAll[] = {BlockGrid::kQ2K, BlockGrid::kQ3K,   BlockGrid::kQ4K,  BlockGrid::kQ5K,
                          BlockGrid::kQ6K, BlockGrid::kIq4Nl, BlockGrid::kIq4Xs};

class BlockGrids : public testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }
  const at::Tensor weight_ = normal(16, 512, 2) * 0.02;
  const at::Tensor hessian_ = correlated_hessian(512, 40);
};

TEST_F(BlockGrids, HoldTheCodesThatGptqChoseAndTheseBeatPlainRounding) {
  for (const BlockGrid block : kAll) {
    const GptqResult result = gptq_quantize(weight_, hessian_, block_scheme(block));
    EXPECT_LT(result.loss, 0.6 * result.rtn_loss) << to_string(block);
    const io::GgmlType type = io::find_ggml_type(to_string(block))->type;
    const auto bytes = keep_codes(type, result.weight);
    ASSERT_TRUE(bytes.has_value()) << to_string(block);
    EXPECT_TRUE(decode(type, *bytes, 16, 512).equal(values_of(result.weight))) << to_string(block);
    EXPECT_LT(result.identity_gap, 1e-3);
  }
}

TEST_F(BlockGrids, AreTheSameForOneThreadAndTwo) {
  const int before = threads();
  for (const BlockGrid block : {BlockGrid::kQ4K, BlockGrid::kQ3K, BlockGrid::kIq4Nl}) {
    const auto chosen = [&](int threads) {
      set_threads(threads);
      const Grid grid = choose_grid(weight_, block_scheme(block), {.search = true},
                                    hessian_.diagonal().contiguous());
      return quantize_to_grid(weight_, grid);
    };
    EXPECT_TRUE(same_weight(chosen(1), chosen(2))) << to_string(block);
  }
  set_threads(before);
}

TEST_F(BlockGrids, OfZeroConstantTinyAndHugeRowsAreFinite) {
  at::Tensor rows = normal(6, 256, 3);
  rows.select(0, 0).zero_();
  rows.select(0, 1).fill_(0.7);
  rows.select(0, 2).mul_(1e-38);
  rows.select(0, 3).mul_(1e30);
  rows.select(0, 4).narrow(0, 16, 240).zero_();
  for (const BlockGrid block : kAll) {
    for (const bool search : {false, true}) {
      const QuantizedWeight found =
          quantize_to_grid(rows, choose_grid(rows, block_scheme(block), {.search = search}));
      const at::Tensor values = values_of(found);
      EXPECT_TRUE(values.isfinite().all().item<bool>()) << to_string(block);
      EXPECT_EQ(values[0].abs().max().item<float>(), 0) << to_string(block);
      EXPECT_LT((values[1] - rows[1]).abs().max().item<float>(), 0.05) << to_string(block);
    }
  }
}

TEST_F(BlockGrids, RefuseRowsThatTheirBlocksDoNotDivideAndRefits) {
  EXPECT_THROW(choose_grid(normal(2, 576, 1), block_scheme(BlockGrid::kQ4K)), UsageError);
  EXPECT_NO_THROW(choose_grid(normal(2, 576, 1), block_scheme(BlockGrid::kIq4Nl)));
  GptqOptions options;
  options.refits = 1;
  EXPECT_THROW(gptq_quantize(weight_, hessian_, block_scheme(BlockGrid::kQ4K), options),
               UsageError);
}

TEST(SchemeRulesOfAType, FollowTheMixtureAndItsFallbacks) {
  ModelConfig config;
  config.layers = 30;
  config.hidden = 576;
  config.ffn = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  SchemeConfig options;
  options.type = "Q4_K_M";
  options.rules = nlohmann::json::array({{{"layers", "o"}, {"bits", 8}, {"group_size", 32}}});
  const SchemeRules rules(options, "test");
  const auto scheme = [&](std::int64_t block, Role role) {
    return *rules.decide(block, role, &config).scheme;
  };
  EXPECT_EQ(scheme(0, Role::kDown).block, BlockGrid::kQ6K);
  EXPECT_EQ(scheme(3, Role::kDown).block, BlockGrid::kQ4K);
  EXPECT_EQ(scheme(3, Role::kUp), scheme_of(io::GgmlType::q5_0));
  EXPECT_EQ(scheme(0, Role::kValue), scheme_of(io::GgmlType::q8_0));
  EXPECT_EQ(scheme(3, Role::kOutput).bits, 8);
  EXPECT_EQ(scheme(3, Role::kOutput).zero_point, ZeroPoint::kInteger);
  EXPECT_THROW(rules.decide(0, Role::kDown), UsageError);
  options.type = "Q9";
  EXPECT_THROW(SchemeRules(options, "test"), UsageError);
}

}  // namespace
}  // namespace attar
