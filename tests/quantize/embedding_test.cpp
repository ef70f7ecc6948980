#include "quantize/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/linalg/quadratic_loss.h"
#include "compress/train/teachers.h"
#include "quantize/embedding_pass.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;

at::Tensor some_ids(std::int64_t windows, std::string_view purpose) {
  return (normal({windows, 24}, purpose).abs() * 1000).to(at::kLong) % 101;
}

QuantScheme three_bits() {
  QuantScheme scheme;
  scheme.bits = 3;
  scheme.group_size = 16;
  return scheme;
}

// Columns that move together, as states do.
at::Tensor some_hessian(std::int64_t columns) {
  const at::Tensor states =
      at::mm(normal({400, columns}, "states"), normal({columns, columns}, "mix"));
  return at::mm(states.t(), states).to(at::kDouble);
}

TEST(EmbeddingRows, AreRoundedAsOneMatrixWouldBe) {
  const at::Tensor weight = normal({8192 + 100, 32}, "rows"), hessian = some_hessian(32);
  const GptqResult whole = gptq_quantize(weight, hessian, three_bits());
  const GptqResult parts = gptq_rows(DenseWeight{weight}, hessian, three_bits(), {}, "rows");
  EXPECT_TRUE(at::equal(whole.weight.codes, parts.weight.codes));
  EXPECT_TRUE(at::equal(whole.weight.scale, parts.weight.scale));
  EXPECT_TRUE(at::equal(whole.weight.zero, parts.weight.zero));
  EXPECT_NEAR(parts.loss / whole.loss, 1, 1e-6);
  EXPECT_NEAR(parts.rtn_loss / whole.rtn_loss, 1, 1e-6);
  EXPECT_LT(parts.loss, 0.7 * parts.rtn_loss);
}

// Against logits: |W x|^2 summed over all tokens is tr(W H W^T).
TEST(HeadStatistics, AreOfWhatMakesTheLogits) {
  const Model model = random_model();
  const at::Tensor ids = some_ids(6, "ids");
  set_threads(1);
  const linalg::GramStatistics one = head_statistics(model, ids, {});
  set_threads(2);
  const linalg::GramStatistics two = head_statistics(model, ids, {});
  EXPECT_TRUE(at::equal(one.gram, two.gram));
  EXPECT_EQ(one.tokens, 6 * 24);
  const at::Tensor head = dense(model.head());
  double expected = 0;
  LiveTeacher teacher(model, {101, {}}, {}, {});
  for (std::int64_t w = 0; w < 6; ++w) {
    teacher.read(ids.narrow(0, w, 1));
    const at::Tensor logits = at::mm(teacher.normed().flatten(0, 1), head.t());
    expected += logits.to(at::kDouble).square().sum().item<double>();
  }
  EXPECT_NEAR(linalg::hessian_loss(head, at::zeros_like(head), one.gram) / expected, 1, 1e-4);
}

class EmbeddingRounding : public ::testing::Test {
 protected:
  struct Rounded {
    Model model;
    PassReport report;
  };
  Rounded round(const nlohmann::json& options) {
    const Model input = random_model();
    Rounded rounded{input.successor(std::make_shared<MemoryModelStore>()), {}};
    const CalibrationTokens tokens = calibration_of(some_ids(40, "calibration"));
    const RunContext context;
    ModelWork work{input,   rounded.model,  input,          &tokens,
                   nullptr, folder_.path(), rounded.report, context};
    EmbeddingPass(read_fields<EmbeddingConfig>(options, "embedding")).run(work);
    return rounded;
  }
  io::testing::TemporaryFolder folder_;
};

// That it lowers the divergence of a model that has learnt is shown in tests/python/test_embedding.
TEST_F(EmbeddingRounding, HoldsTheGridAndMovesErrorsAlongTheRow) {
  const Rounded moved = round({{"bits", 3}, {"group_size", 32}});
  const Weight embedding = moved.model.embedding();
  const auto& codes = std::get<QuantizedWeight>(embedding);
  EXPECT_EQ(codes.scheme.bits, 3);
  EXPECT_EQ(codes.scheme.group_size, 32);
  EXPECT_TRUE(at::equal(dense(moved.model.head()), dense(embedding)));
  ASSERT_EQ(moved.report.changed.size(), 1u);
  EXPECT_LT(moved.report.changed.front().error, moved.report.changed.front().baseline_error);
  EXPECT_EQ(std::get<QuantizedWeight>(round({{"type", "IQ4_NL"}}).model.embedding()).scheme,
            block_scheme(BlockGrid::kIq4Nl));
}

// The final norm takes channel 5 away; the first block still reads it.
TEST_F(EmbeddingRounding, AChannelThatTheHeadNeverSeesStays) {
  const Model original = random_model();
  Model input = original.successor(std::make_shared<MemoryModelStore>());
  at::Tensor norm = original.final_norm().clone();
  norm[5] = 0;
  input.put_outer({original.embedding(), norm, std::nullopt});
  Rounded rounded{input.successor(std::make_shared<MemoryModelStore>()), {}};
  const CalibrationTokens tokens = calibration_of(some_ids(8, "calibration"));
  const RunContext context;
  ModelWork work{input,   rounded.model,  input,          &tokens,
                 nullptr, folder_.path(), rounded.report, context};
  EmbeddingPass(read_fields<EmbeddingConfig>({{"bits", 8}, {"group_size", 32}}, "")).run(work);
  const at::Tensor before = dense(input.embedding()).select(1, 5);
  const at::Tensor after = dense(rounded.model.embedding()).select(1, 5);
  EXPECT_LT((after - before).norm().item<double>(), 0.02 * before.norm().item<double>());
}

TEST(EmbeddingPass, RefusesAGridThatDoesNotFit) {
  const ModelConfig config = random_model().config();
  const auto pass = [](const nlohmann::json& options) {
    return EmbeddingPass(read_fields<EmbeddingConfig>(options, "embedding"));
  };
  EXPECT_EQ(pass({{"type", "Q4_K"}}).plan_rows(config).action, "gptq W5 g32 symmetric");
  try {
    pass({{"group_size", 48}}).plan_rows(config);
    ADD_FAILURE();
  } catch (const DoesNotFit& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("group_size=48, hidden size=64"));
  }
  EXPECT_THROW(pass({{"type", "Q9_K"}}), UsageError);
}

}  // namespace
}  // namespace attar
