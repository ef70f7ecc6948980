#include "lowrank/refit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <gtest/gtest.h>

#include "compress/core/numerics.h"
#include "compress/linalg/corrected_target.h"
#include "tests/lowrank/matrices.h"

namespace attar {
namespace {

using testing::inputs_of;
using testing::normal;
using testing::squared;
using testing::weight_of;

// A layer whose inputs come through something that was changed: mixed up a little, and smaller.
class Refit : public ::testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }

  double error(const at::Tensor& changed_weight) const {
    return squared(weight_.mm(dense_) - changed_weight.mm(x_));
  }
  double error(const Factors& factors) const { return error(factors.left.mm(factors.right)); }

  at::Tensor weight_ = weight_of(24, 32);
  at::Tensor dense_ = inputs_of(32, 400);
  at::Tensor x_ =
      (at::eye(32, at::kDouble) * 0.8 + normal({32, 32}, "mixing up", 0.03).to(at::kDouble))
          .mm(dense_) +
      normal({32, 400}, "lost", 0.05).to(at::kDouble);
  at::Tensor gram_ = x_.mm(x_.t());
  at::Tensor target_ = weight_.mm(dense_.mm(x_.t()));
};

// At the minimum the derivative vanishes: (W X_dense - left right X) X^T right^T = 0.
TEST_F(Refit, OfTheLeftFactorIsTheLeastSquaresSolution) {
  const Factors cut = truncate(weight_, output_pca(weight_, gram_), 8);
  const Factors refitted = refit_left(cut, target_, gram_, 0);
  const at::Tensor left_over = weight_.mm(dense_) - refitted.left.mm(refitted.right).mm(x_);
  const at::Tensor slope = left_over.mm(x_.t()).mm(refitted.right.t());
  EXPECT_LE(slope.abs().max().item<double>(), 1e-8 * target_.abs().max().item<double>());
  EXPECT_LT(error(refitted), 0.9 * error(cut));
  EXPECT_TRUE(refitted.right.equal(cut.right));
}

TEST_F(Refit, OfUnchangedInputsChangesNothing) {
  const at::Tensor gram = dense_.mm(dense_.t());
  const Factors cut = truncate(weight_, output_pca(weight_, gram), 8);
  const Factors refitted = refit_left(cut, weight_.mm(gram), gram, 0.01);
  EXPECT_LE((refitted.left - cut.left).abs().max().item<double>(), 1e-9);
  const at::Tensor target = linalg::corrected_target(weight_, weight_.mm(gram), gram, 0.01);
  EXPECT_LE((target - weight_).abs().max().item<double>(), 1e-9);
}

// Any rank-8 layer is beaten: the cut of the corrected target, the refitted cut, and random steps.
TEST_F(Refit, CutOfTheCorrectedTargetIsTheBestLayerOfItsRank) {
  const at::Tensor target = linalg::corrected_target(weight_, target_, gram_, 0);
  const Factors best = truncate(target, output_pca(target, gram_), 8);
  const Factors cut = truncate(weight_, output_pca(weight_, gram_), 8);
  EXPECT_LE(error(best), error(refit_left(cut, target_, gram_, 0)) * (1 + 1e-9));
  for (int step = 0; step < 8; ++step) {
    const std::string name = "step" + std::to_string(step);
    const Factors moved{best.left + normal({24, 8}, name + "l", 1e-3).to(at::kDouble),
                        best.right + normal({8, 32}, name + "r", 1e-3).to(at::kDouble)};
    EXPECT_GT(error(moved), error(best));
  }
}

TEST_F(Refit, DampingDrawsTowardsTheWeight) {
  double before = 0;
  for (const double damping : {1e-4, 1e-2, 1.0, 100.0}) {
    const at::Tensor target = linalg::corrected_target(weight_, target_, gram_, damping);
    const double kept = 1 / squared(target - weight_);
    EXPECT_GT(kept, before) << damping;
    before = kept;
  }
}

// The left factor makes up for what rounding took from the right one.
TEST_F(Refit, MakesUpForARoundedRightFactor) {
  const Factors cut = truncate(weight_, output_pca(weight_, gram_), 8);
  const Factors rounded{cut.left, (cut.right * 4).round() / 4};
  const at::Tensor own = weight_.mm(gram_);
  const auto own_error = [&](const Factors& f) {
    return output_energy(weight_ - f.left.mm(f.right), gram_);
  };
  EXPECT_LT(own_error(refit_left(rounded, own, gram_, 1e-6)), own_error(rounded));
}

}  // namespace
}  // namespace attar
