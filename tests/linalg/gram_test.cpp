#include "compress/linalg/gram.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/linalg/cross_gram.h"

namespace attar::linalg {
namespace {

// Waves of different length, column j with a size of its own: [tokens, columns] float32.
at::Tensor activations(std::int64_t tokens, std::int64_t columns) {
  const at::Tensor wave = at::arange(tokens * columns, at::kDouble).mul(0.7371).sin();
  const at::Tensor size = at::arange(columns, at::kDouble).mul(0.37).cos() + 1.3;
  return (wave.reshape({tokens, columns}) * size).to(at::kFloat);
}

GramStatistics of(const at::Tensor& rows, const std::vector<std::int64_t>& cuts) {
  GramAccumulator sums(rows.size(1));
  std::int64_t at = 0;
  for (std::size_t i = 0; at < rows.size(0); ++i) {
    const std::int64_t count = std::min(cuts[i % cuts.size()], rows.size(0) - at);
    sums.add(rows.narrow(0, at, count));
    at += count;
  }
  return sums.finish();
}

bool same_bits(const GramStatistics& a, const GramStatistics& b) {
  return a.gram.equal(b.gram) && a.sum.equal(b.sum) && a.sum_absolute.equal(b.sum_absolute) &&
         a.sum_squares.equal(b.sum_squares) && a.max_absolute.equal(b.max_absolute) &&
         a.tokens == b.tokens && a.dropped == b.dropped;
}

class GramOf : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { set_up_numerics(); }
};

// Float32 products of K <= 8192 terms: each entry is off by at most K eps |x_i| |x_j| (Higham 3.5),
// in practice sqrt(K); the bound here is the square root's, times 8.
TEST_P(GramOf, AgreesWithDoubleProducts) {
  const at::Tensor rows = activations(1300, GetParam());
  const GramStatistics sums = of(rows, {1300});
  const at::Tensor exact = rows.to(at::kDouble).t().mm(rows.to(at::kDouble));
  const at::Tensor lengths = rows.to(at::kDouble).square().sum(0).sqrt();
  const at::Tensor bound = 8 * std::sqrt(1300.0) * 5.96e-8 * lengths.outer(lengths);
  EXPECT_TRUE(((sums.gram - exact).abs() <= bound).all().item<bool>());
  EXPECT_TRUE(sums.gram.equal(sums.gram.t()));
  EXPECT_TRUE(sums.sum.allclose(rows.to(at::kDouble).sum(0), 1e-12, 1e-9));
  EXPECT_TRUE(sums.sum_absolute.allclose(rows.to(at::kDouble).abs().sum(0), 1e-12));
  EXPECT_TRUE(sums.sum_squares.allclose(rows.to(at::kDouble).square().sum(0), 1e-12));
  EXPECT_TRUE(sums.max_absolute.equal(std::get<0>(rows.to(at::kDouble).abs().max(0))));
  EXPECT_TRUE(sums.mean_absolute().allclose(rows.to(at::kDouble).abs().mean(0), 1e-12));
  EXPECT_EQ(sums.tokens, 1300);
}

INSTANTIATE_TEST_SUITE_P(Columns, GramOf, testing::Values(1, 7, 256, 300, 577));

TEST(Gram, HasTheSameBitsHoweverRowsAreBatched) {
  set_up_numerics();
  const at::Tensor rows = activations(9000, 96);
  const GramStatistics whole = of(rows, {9000});
  EXPECT_TRUE(same_bits(of(rows, {512}), whole));
  EXPECT_TRUE(same_bits(of(rows, {1, 2047, 33, 700}), whole));
}

TEST(Gram, HasTheSameBitsForOneThreadAndTwo) {
  set_up_numerics();
  const int before = threads();
  const at::Tensor rows = activations(2500, 330);
  set_threads(1);
  const GramStatistics one = of(rows, {512});
  set_threads(2);
  const GramStatistics two = of(rows, {512});
  set_threads(before);
  EXPECT_TRUE(same_bits(one, two));
}

TEST(Gram, TakesRowsWithAStride) {
  set_up_numerics();
  const at::Tensor wide = activations(1100, 64);
  const at::Tensor part = wide.narrow(1, 8, 40);
  EXPECT_TRUE(same_bits(of(part, {1100}), of(part.contiguous(), {1100})));
}

TEST(Gram, OfTwoHalvesMergesToTheWhole) {
  set_up_numerics();
  const at::Tensor rows = activations(2 * GramAccumulator::kStepTokens, 48);
  const GramStatistics first = of(rows.narrow(0, 0, GramAccumulator::kStepTokens), {512});
  const GramStatistics second =
      of(rows.narrow(0, GramAccumulator::kStepTokens, GramAccumulator::kStepTokens), {300});
  const GramStatistics merged = merge(first, second);
  const GramStatistics whole = of(rows, {512});
  EXPECT_TRUE(merged.gram.equal(whole.gram));  // each half is one exact fold
  EXPECT_TRUE(merged.sum_squares.allclose(whole.sum_squares, 1e-13));
  EXPECT_TRUE(merged.max_absolute.equal(whole.max_absolute));
  EXPECT_EQ(merged.tokens, whole.tokens);
}

TEST(Gram, LeavesRowsOutThatAreNotFiniteAndCountsThem) {
  set_up_numerics();
  at::Tensor rows = activations(1500, 20);
  at::Tensor clean = rows.clone();
  const float broken[] = {std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()};
  const std::int64_t places[] = {0, 700, 1499};
  for (int k = 0; k < 3; ++k) {
    rows.select(0, places[k]).select(0, 5 * k).fill_(broken[k]);
    clean.select(0, places[k]).zero_();
  }
  const GramStatistics sums = of(rows, {512});
  EXPECT_EQ(sums.dropped, 3);
  EXPECT_EQ(sums.tokens, 1497);
  EXPECT_TRUE(sums.gram.equal(of(clean, {512}).gram));
  EXPECT_TRUE(sums.mean_absolute().allclose(clean.to(at::kDouble).abs().sum(0) / 1497.0, 1e-12));
}

TEST(Gram, RefusesRowsOfAnotherWidthOrType) {
  GramAccumulator sums(8);
  EXPECT_THROW(sums.add(activations(3, 9)), BadInput);
  EXPECT_THROW(sums.add(activations(3, 8).to(at::kDouble)), BadInput);
  EXPECT_THROW(GramAccumulator(0), BadInput);
}

CrossGram crossed(const at::Tensor& dense, const at::Tensor& changed,
                  const std::vector<std::int64_t>& cuts) {
  CrossAccumulator sums(dense.size(1), changed.size(1));
  std::int64_t at = 0;
  for (std::size_t i = 0; at < dense.size(0); ++i) {
    const std::int64_t count = std::min(cuts[i % cuts.size()], dense.size(0) - at);
    sums.add(dense.narrow(0, at, count), changed.narrow(0, at, count));
    at += count;
  }
  return sums.finish();
}

// The bound of GramOf.AgreesWithDoubleProducts; the two sides may differ in width.
TEST(CrossGram, AgreesWithDoubleProducts) {
  set_up_numerics();
  const at::Tensor dense = activations(2100, 37), changed = activations(2100, 20).cos();
  const CrossGram sums = crossed(dense, changed, {2100});
  const at::Tensor a = dense.to(at::kDouble), b = changed.to(at::kDouble);
  const at::Tensor bound =
      8 * std::sqrt(2100.0) * 5.96e-8 * a.square().sum(0).sqrt().outer(b.square().sum(0).sqrt());
  EXPECT_TRUE(((sums.gram - a.t().mm(b)).abs() <= bound).all().item<bool>());
  EXPECT_EQ(sums.tokens, 2100);
}

TEST(CrossGram, HasTheSameBitsHoweverRowsAreBatchedAndThreadsCounted) {
  set_up_numerics();
  const at::Tensor dense = activations(9000, 48), changed = activations(9000, 32).cos();
  const int before = threads();
  set_threads(1);
  const CrossGram whole = crossed(dense, changed, {9000});
  set_threads(2);
  EXPECT_TRUE(crossed(dense, changed, {1, 700, 2048, 3}).gram.equal(whole.gram));
  set_threads(before);
}

TEST(CrossGram, LeavesOutATokenThatIsNotFiniteOnEitherSide) {
  set_up_numerics();
  at::Tensor dense = activations(1030, 8), changed = activations(1030, 5).cos();
  dense[3][2] = std::numeric_limits<float>::quiet_NaN();
  changed[1027][0] = std::numeric_limits<float>::infinity();
  const CrossGram sums = crossed(dense, changed, {100});
  dense[3].zero_();
  changed[1027].zero_();
  EXPECT_TRUE(sums.gram.equal(crossed(dense, changed, {100}).gram));
  EXPECT_EQ(sums.dropped, 2);
  EXPECT_EQ(sums.tokens, 1028);
}

TEST(CrossGram, RefusesSidesOfDifferentTokens) {
  CrossAccumulator sums(4, 4);
  EXPECT_THROW(sums.add(activations(3, 4), activations(2, 4)), BadInput);
  EXPECT_THROW(sums.add(activations(3, 5), activations(3, 4)), BadInput);
}

}  // namespace
}  // namespace attar::linalg
