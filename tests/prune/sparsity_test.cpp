#include "prune/sparsity.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "prune/magnitude.h"
#include "prune/wanda.h"
#include "tests/prune/matrices.h"

namespace attar {
namespace {

std::int64_t kept(const at::Tensor& keep) { return keep.sum().item<std::int64_t>(); }

TEST(Pattern, IsReadFromItsName) {
  const SparsityPattern groups = pattern_from("2:4", 0.9, "test");
  EXPECT_EQ(groups.keep, 2);
  EXPECT_EQ(groups.of, 4);
  EXPECT_EQ(groups.density(), 0.5);
  EXPECT_EQ(describe(groups), "2:4");
  const SparsityPattern share = pattern_from("unstructured", 0.75, "test");
  EXPECT_FALSE(share.in_groups());
  EXPECT_EQ(share.density(), 0.25);
  EXPECT_EQ(describe(share), "75 %");
  for (const char* wrong : {"4:2", "0:4", "2:2", "2/4", ":4", "2:", "2:4 ", "2:128", "", "half"}) {
    EXPECT_THROW(pattern_from(wrong, 0.5, "test"), UsageError) << wrong;
  }
  EXPECT_THROW(pattern_from("unstructured", 1.0, "test"), UsageError);
}

// 0.3 * 10 is below 3 in float64.
TEST(CutCount, LosesNoneToRounding) {
  EXPECT_EQ(cut_count(0.3, 10), 3);
  EXPECT_EQ(cut_count(10.0 / 18, 18), 10);
  EXPECT_EQ(cut_count(0.55, 18), 9);
  EXPECT_EQ(cut_count(0, 18), 0);
}

TEST(KeepBest, CutsExactlyItsShareWithTheLowestIndexFirst) {
  const at::Tensor equal = at::ones({3, 5}, at::kFloat);
  const at::Tensor of_all = keep_best(equal, {.sparsity = 0.5}, CutScope::kMatrix).reshape({-1});
  EXPECT_EQ(kept(of_all), 15 - 7);
  EXPECT_EQ(kept(of_all.narrow(0, 0, 7)), 0);
  const at::Tensor of_rows = keep_best(equal, {.sparsity = 0.5}, CutScope::kRow);
  for (std::int64_t r = 0; r < 3; ++r) {
    EXPECT_EQ(kept(of_rows[r]), 3);
    EXPECT_EQ(kept(of_rows[r].narrow(0, 0, 2)), 0);
  }
  const at::Tensor scores = testing::normal({48, 96}, "scores");
  for (const double share : {0.0, 0.01, 0.37, 0.5, 0.9}) {
    EXPECT_EQ(kept(keep_best(scores, {.sparsity = share}, CutScope::kMatrix)),
              48 * 96 - cut_count(share, 48 * 96));
  }
}

TEST(KeepBest, CutsTheLowest) {
  const at::Tensor scores = at::tensor({5.f, 1.f, 4.f, 2.f, 3.f, 0.f, 9.f, 8.f}).reshape({2, 4});
  EXPECT_TRUE(keep_best(scores, {.sparsity = 0.5}, CutScope::kMatrix)
                  .equal(at::tensor({1, 0, 1, 0, 0, 0, 1, 1}).reshape({2, 4}).to(at::kBool)));
  EXPECT_TRUE(keep_best(scores, {.sparsity = 0.5}, CutScope::kRow)
                  .equal(at::tensor({1, 0, 1, 0, 0, 0, 1, 1}).reshape({2, 4}).to(at::kBool)));
  EXPECT_TRUE(keep_best(scores, pattern_from("1:2", 0, "test"), CutScope::kRow)
                  .equal(at::tensor({1, 0, 1, 0, 1, 0, 1, 0}).reshape({2, 4}).to(at::kBool)));
}

TEST(KeepBest, KeepsNOfEveryGroupOfM) {
  const at::Tensor scores = testing::normal({32, 96}, "scores");
  for (const char* name : {"2:4", "1:4", "4:8", "3:8", "1:2"}) {
    const SparsityPattern pattern = pattern_from(name, 0, "test");
    const at::Tensor groups =
        keep_best(scores, pattern, CutScope::kRow).reshape({-1, pattern.of}).sum(1);
    EXPECT_TRUE(groups.eq(pattern.keep).all().item<bool>()) << name;
  }
  EXPECT_THROW(keep_best(scores, pattern_from("4:7", 0, "test"), CutScope::kRow), DoesNotFit);
}

TEST(Magnitude, CutsTheSmallestOfTheWholeMatrix) {
  const at::Tensor weight = testing::normal({24, 40}, "weight");
  const at::Tensor keep = magnitude_mask(weight, {.sparsity = 0.6});
  const float largest_cut = weight.abs().masked_select(keep.logical_not()).max().item<float>();
  const float smallest_kept = weight.abs().masked_select(keep).min().item<float>();
  EXPECT_LE(largest_cut, smallest_kept);
  EXPECT_EQ(kept(keep), 24 * 40 - 576);
}

// With inputs of one size it is magnitude row by row; a loud input saves its weights.
TEST(Wanda, WeighsByTheNormOfTheInput) {
  const at::Tensor weight = testing::normal({24, 40}, "weight");
  at::Tensor hessian = at::full({40}, 3.0, at::kDouble).diag();
  const SparsityPattern half{.sparsity = 0.5};
  EXPECT_TRUE(
      wanda_mask(weight, hessian, half).equal(keep_best(weight.abs(), half, CutScope::kRow)));
  hessian[7][7] = 1e12;
  EXPECT_EQ(kept(wanda_mask(weight, hessian, half).select(1, 7)), 24);
  hessian[7][7] = 0;
  EXPECT_EQ(kept(wanda_mask(weight, hessian, half).select(1, 7)), 0);
  EXPECT_THROW(wanda_scores(weight, at::full({39}, 1.0, at::kDouble).diag()), UsageError);
}

}  // namespace
}  // namespace attar
