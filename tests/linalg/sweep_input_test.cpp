#include "compress/linalg/sweep_input.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "compress/core/numerics.h"
#include "compress/linalg/corrected_target.h"
#include "tests/support/random_model.h"

namespace attar::linalg {
namespace {

class SweepAim : public ::testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }

  // What the layer's input was, and what it is after layers before it were rounded: X, and X with
  // noise a tenth of its size.
  static constexpr std::int64_t kColumns = 96;
  const at::Tensor dense_ = testing::normal({600, kColumns}, "1")
                                .mm(testing::normal({kColumns, kColumns}, "2"))
                                .to(at::kDouble);
  const at::Tensor changed_ = dense_ + testing::normal({600, kColumns}, "3").to(at::kDouble);
  const at::Tensor gram_ = changed_.t().mm(changed_);
  const at::Tensor cross_ = dense_.t().mm(changed_);
  const at::Tensor weight_ = testing::normal({40, kColumns}, "4");

  at::Tensor aimed(CrossGram cross, double share, double damping, bool act_order = true,
                   const at::Tensor& gram = {}) const {
    return SweepInput(gram.defined() ? gram : gram_, &cross, {act_order, damping, share}, "test")
        .aim(weight_, weight_);
  }
  CrossGram crossed(const at::Tensor& residual = {}) const {
    return {cross_.clone(), 600, 0, residual};
  }
  at::Tensor slow(double damping) const {
    const at::Tensor weight = weight_.to(at::kDouble);
    return corrected_target(weight, weight.mm(cross_), gram_, damping);
  }
};

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

TEST_F(SweepAim, AimsAtTheDenseOutputsAsTheEquationInDoubleDoes) {
  for (const double damping : {0.03, 1e-4}) {
    const at::Tensor wanted = slow(damping);
    const double change = distance(wanted, weight_);
    ASSERT_LT(change, 0.3 * weight_.norm().item<double>());
    for (const bool act_order : {true, false}) {
      EXPECT_LT(distance(aimed(crossed(), 1, damping, act_order), wanted), 1e-4 * change)
          << damping;
    }
    EXPECT_NEAR(distance(aimed(crossed(), 0.5, damping), weight_), 0.5 * change, 1e-4 * change);
  }
}

TEST_F(SweepAim, MakesUpForWhatTheResidualStreamHasLost) {
  const at::Tensor lost = 5 * testing::normal({600, 40}, "lost").to(at::kDouble);
  const at::Tensor weight = weight_.to(at::kDouble);
  const CrossGram cross = crossed(lost.t().mm(changed_));
  const at::Tensor wanted = corrected_target(weight, dense_target(weight, cross), gram_, 0.03);
  // The equations themselves: outputs as they were and what was lost before, least squares.
  const at::Tensor damped = gram_ + 0.03 * gram_.diagonal().mean() * at::eye(kColumns, at::kDouble);
  const at::Tensor right =
      (dense_.mm(weight.t()) + lost).t().mm(changed_) + 0.03 * gram_.diagonal().mean() * weight;
  EXPECT_LT(distance(wanted.mm(damped), right), 1e-9 * right.norm().item<double>());
  const at::Tensor found = aimed(cross, 1, 0.03);
  EXPECT_LT(distance(found, wanted), 1e-4 * distance(wanted, weight_));
  EXPECT_GT(distance(wanted, slow(0.03)), 0.1 * distance(wanted, weight_));
}

TEST_F(SweepAim, LeavesTheWeightWhereInputsAreAsTheyWere) {
  EXPECT_TRUE(aimed({gram_.clone(), 600, 0}, 1, 0.03).equal(weight_));
}

TEST_F(SweepAim, GoesNoFurtherThanAThirdOfTheWeight) {
  const at::Tensor found = aimed({cross_ + 100 * gram_, 600, 0}, 1, 0.03);
  const double size = weight_.norm().item<double>();
  EXPECT_NEAR(distance(found, weight_), 0.3 * size, 1e-4 * size);
}

TEST_F(SweepAim, LeavesTheWeightWhereNothingCanBeFactored) {
  const at::Tensor nothing = at::zeros({kColumns, kColumns}, at::kDouble);
  EXPECT_TRUE(aimed(crossed(), 1, 0.03, true, nothing).equal(weight_));
}

// A pass before that has aimed already takes no part: its change would count twice.
TEST_F(SweepAim, StartsFromTheUnchangedWeight) {
  const at::Tensor moved = weight_ + 0.1 * testing::normal({40, kColumns}, "moved");
  CrossGram cross = crossed();
  const SweepInput input(gram_, &cross, {true, 0.03, 0.5}, "test");
  EXPECT_TRUE(input.aim(moved, weight_).equal(aimed(crossed(), 0.5, 0.03)));
  EXPECT_FALSE(cross.gram.defined());  // given back
  const SweepInput alone(gram_, nullptr, {true, 0.03, 0.5}, "test");
  EXPECT_TRUE(alone.aim(moved, weight_).equal(moved));
}

// Under a mask: the nearest to the aim that it allows, row by row by the normal equations.
TEST_F(SweepAim, IsTheNearestUnderAMask) {
  const at::Tensor keep = testing::normal({40, kColumns}, "keep") > 0;
  CrossGram cross = crossed();
  const SweepInput input(gram_, &cross, {false, 0.1, 1}, "test");
  const at::Tensor found = input.aim(weight_ * keep, weight_, keep);
  const at::Tensor damped = input.hessian().damped();
  const at::Tensor right = input.aim(weight_, weight_).to(at::kDouble).mm(damped);
  for (std::int64_t r = 0; r < 40; ++r) {
    const at::Tensor kept = keep[r].nonzero().squeeze(1);
    const at::Tensor part = damped.index_select(0, kept).index_select(1, kept);
    const at::Tensor wanted = right[r].index_select(0, kept).matmul(part.inverse());
    EXPECT_LT(distance(found[r].index_select(0, kept), wanted), 1e-2) << r;
  }
  EXPECT_EQ(found.masked_select(keep.logical_not()).abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace attar::linalg
