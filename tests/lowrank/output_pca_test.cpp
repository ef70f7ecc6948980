#include "lowrank/output_pca.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "tests/lowrank/matrices.h"

namespace attar {
namespace {

using testing::inputs_of;
using testing::squared;
using testing::weight_of;

struct Shape {
  std::int64_t out, in, tokens;
};

class OutputPcaOf : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override { set_up_numerics(); }
  at::Tensor weight_ = weight_of(GetParam().out, GetParam().in);
  at::Tensor x_ = inputs_of(GetParam().in, GetParam().tokens);
  at::Tensor gram_ = x_.mm(x_.t());
};

// The identity of output_pca.h, for every rank; fewer tokens than columns make the Gram singular.
TEST_P(OutputPcaOf, ErrorOfEveryRankIsTheSumOfTheDroppedValues) {
  const OutputPca pca = output_pca(weight_, gram_);
  const double energy = squared(weight_.mm(x_));
  EXPECT_NEAR(pca.values.sum().item<double>(), energy, 1e-9 * energy);
  for (std::int64_t rank = 0; rank <= pca.values.size(0); rank += 5) {
    const Factors factors = truncate(weight_, pca, rank);
    EXPECT_EQ(factors.left.size(1), rank);
    const double error = squared((weight_ - factors.left.mm(factors.right)).mm(x_));
    EXPECT_NEAR(error, pca.values.slice(0, rank).sum().item<double>(), 1e-6 * energy) << rank;
  }
}

// Eckart and Young on the outputs themselves, by an independent route.
TEST_P(OutputPcaOf, ReachesTheEckartYoungValueOfItsMetric) {
  const at::Tensor outputs = weight_.mm(x_);
  const at::Tensor singular = std::get<1>(outputs.svd());
  const OutputPca pca = output_pca(weight_, gram_);
  for (const std::int64_t rank : {1, 8, 17}) {
    const Factors factors = truncate(weight_, pca, rank);
    const double error = squared((weight_ - factors.left.mm(factors.right)).mm(x_));
    const double best = squared(singular.slice(0, rank));
    EXPECT_NEAR(error, best, 1e-6 * squared(singular)) << rank;
  }
}

TEST_P(OutputPcaOf, BeatsPlainTruncationOnItsInputs) {
  const OutputPca pca = output_pca(weight_, gram_);
  for (const std::int64_t rank : {4, 12}) {
    const Factors ours = truncate(weight_, pca, rank), plain = plain_svd(weight_, rank);
    EXPECT_LT(output_energy(weight_ - ours.left.mm(ours.right), gram_),
              0.9 * output_energy(weight_ - plain.left.mm(plain.right), gram_))
        << rank;
  }
}

TEST_P(OutputPcaOf, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  set_threads(1);
  const Factors one = truncate(weight_, output_pca(weight_, gram_), 10);
  set_threads(2);
  const Factors two = truncate(weight_, output_pca(weight_, gram_), 10);
  set_threads(before);
  EXPECT_TRUE(one.left.equal(two.left));
  EXPECT_TRUE(one.right.equal(two.right));
}

INSTANTIATE_TEST_SUITE_P(Shapes, OutputPcaOf,
                         ::testing::Values(Shape{24, 40, 300}, Shape{40, 24, 300},
                                           Shape{32, 32, 20}, Shape{60, 30, 22}),
                         [](const auto& info) {
                           return std::to_string(info.param.out) + "x" +
                                  std::to_string(info.param.in) + "_tokens" +
                                  std::to_string(info.param.tokens);
                         });

TEST(OutputPca, WithWhiteInputsIsPlainTruncation) {
  set_up_numerics();
  const at::Tensor weight = weight_of(20, 30);
  const Factors ours = truncate(weight, output_pca(weight, at::eye(30, at::kDouble)), 7);
  const Factors plain = plain_svd(weight, 7);
  EXPECT_LE((ours.left.mm(ours.right) - plain.left.mm(plain.right)).abs().max().item<double>(),
            1e-10);
}

TEST(OutputPca, OfALayerThatIsNeverActiveHasNoDirections) {
  const at::Tensor weight = weight_of(6, 4);
  const OutputPca pca = output_pca(weight, at::eye(4, at::kDouble) * 0);
  EXPECT_EQ(pca.values.size(0), 0);
  EXPECT_EQ(truncate(weight, pca, 3).left.sizes(), (std::vector<std::int64_t>{6, 0}));
}

TEST(OutputPca, RefusesWhatDoesNotFit) {
  const at::Tensor weight = weight_of(6, 4);
  EXPECT_THROW(output_pca(weight, at::eye(6, at::kDouble)), BadInput);
  EXPECT_THROW(output_pca(weight.to(at::kFloat), at::eye(4, at::kDouble)), BadInput);
  EXPECT_THROW(
      output_pca(weight, at::eye(4, at::kDouble) * std::numeric_limits<double>::infinity()),
      NumericRefusal);
}

at::Tensor matrix(const nlohmann::json& rows) {
  std::vector<double> values;
  for (const auto& row : rows) {
    for (const auto& value : row) values.push_back(value.get<double>());
  }
  return at::tensor(values, at::kDouble).reshape({static_cast<std::int64_t>(rows.size()), -1});
}

// G:svdllm, by Jacobi rotations in plain Python.
TEST(OutputPca, MatchesTheOracle) {
  const std::filesystem::path path = ATTAR_SOURCE_DIR "/../shared/specs/golden/golden.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/specs/golden/golden.json";
  set_up_numerics();
  nlohmann::json golden;
  std::ifstream(path) >> golden;
  const nlohmann::json& oracle = golden["svdllm"];
  const at::Tensor weight = matrix(golden["W"]), x = matrix(golden["X"]);
  const OutputPca pca = output_pca(weight, x.mm(x.t()));
  for (std::int64_t i = 0; i < 3; ++i) {
    const double expected = oracle["sigma2"][static_cast<std::size_t>(i)].get<double>();
    EXPECT_NEAR(pca.values[i].item<double>(), expected, 1e-9 * expected);
  }
  for (const int rank : {1, 2}) {
    const std::string r = std::to_string(rank);
    const Factors factors = truncate(weight, pca, rank);
    const at::Tensor cut = factors.left.mm(factors.right);
    EXPECT_LE((cut - matrix(oracle["W_r" + r])).abs().max().item<double>(), 1e-6);
    EXPECT_NEAR(squared((weight - cut).mm(x)), oracle["err_r" + r].get<double>(), 1e-6);
  }
}

}  // namespace
}  // namespace attar
