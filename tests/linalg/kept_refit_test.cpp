#include "compress/linalg/kept_refit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "compress/core/numerics.h"
#include "compress/linalg/quadratic_loss.h"
#include "tests/support/random_model.h"

namespace attar::linalg {
namespace {

class KeptRefit : public ::testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }

  // X X^T of inputs with three common causes, a hundredth of its mean diagonal added.
  static at::Tensor damped(std::int64_t columns) {
    const at::Tensor own = testing::normal({6 * columns, columns}, "own", 0.5).to(at::kDouble);
    const at::Tensor causes = testing::normal({6 * columns, 3}, "causes").to(at::kDouble);
    const at::Tensor x = own + causes.mm(testing::normal({3, columns}, "mixing").to(at::kDouble));
    at::Tensor hessian = x.t().mm(x);
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean().item<double>());
    return hessian;
  }
  // Row by row the normal equations of the kept columns, in double.
  at::Tensor exact() const {
    at::Tensor values = at::zeros_like(weight_).to(at::kDouble);
    const at::Tensor right = weight_.to(at::kDouble).mm(hessian_);
    for (std::int64_t r = 0; r < weight_.size(0); ++r) {
      const at::Tensor kept = keep_[r].nonzero().squeeze(1);
      const at::Tensor part = hessian_.index_select(0, kept).index_select(1, kept);
      values[r].index_copy_(0, kept, right[r].index_select(0, kept).matmul(part.inverse()));
    }
    return values;
  }
  at::Tensor refit(int steps) const {
    return refit_kept(weight_, hessian_.to(at::kFloat), keep_.to(at::kByte), weight_ * keep_,
                      steps);
  }
  double loss(const at::Tensor& values) const { return hessian_loss(weight_, values, hessian_); }

  const at::Tensor weight_ = testing::normal({24, 96}, "weight"), hessian_ = damped(96);
  const at::Tensor keep_ = testing::normal({24, 96}, "keep") > 0;
};

TEST_F(KeptRefit, ReachesTheSolutionOfTheNormalEquations) {
  const at::Tensor wanted = exact(), found = refit(40);
  EXPECT_LT((found - wanted).abs().max().item<double>(), 1e-3);
  EXPECT_LT(loss(found.to(at::kFloat)), 1.0001 * loss(wanted.to(at::kFloat)));
  EXPECT_LT(loss(found), 0.5 * loss(weight_ * keep_));
  EXPECT_EQ(found.masked_select(keep_.logical_not()).abs().max().item<float>(), 0);
}

TEST_F(KeptRefit, EveryStepLowersTheLoss) {
  EXPECT_TRUE(refit(0).equal(weight_ * keep_));
  double before = loss(weight_ * keep_);
  for (const int steps : {1, 2, 4, 8, 16}) {
    const double now = loss(refit(steps));
    EXPECT_LT(now, before) << steps;
    before = now;
  }
}

TEST_F(KeptRefit, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  set_threads(1);
  const at::Tensor one = refit(10);
  set_threads(2);
  const at::Tensor two = refit(10);
  set_threads(before);
  EXPECT_TRUE(one.equal(two));
}

}  // namespace
}  // namespace attar::linalg
