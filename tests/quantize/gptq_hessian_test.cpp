#include "quantize/gptq_hessian.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "compress/core/numerics.h"
#include "compress/linalg/corrected_target.h"
#include "quantize/gptq.h"
#include "quantize/rtn.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

class GptqHessianTest : public testing::Test {
 protected:
  void SetUp() override { set_up_numerics(); }

  // What the layer's input was, and what it is after layers before it were rounded: X, and X with
  // noise a tenth of its size.
  static constexpr std::int64_t kColumns = 96;
  const at::Tensor dense_ =
      normal(600, kColumns, 1).mm(normal(kColumns, kColumns, 2)).to(at::kDouble);
  const at::Tensor changed_ = dense_ + normal(600, kColumns, 3).to(at::kDouble);
  const at::Tensor gram_ = changed_.t().mm(changed_);
  const at::Tensor cross_ = dense_.t().mm(changed_);
  const at::Tensor weight_ = normal(40, kColumns, 4);

  at::Tensor aimed(double share, double damping, bool act_order = true) const {
    const GptqHessian hessian = prepare_hessian(gram_, act_order, damping, "test");
    return aim_at_dense(weight_, lost_inputs(cross_.clone(), gram_), hessian, share);
  }
  at::Tensor slow(double damping) const {
    const at::Tensor weight = weight_.to(at::kDouble);
    return linalg::corrected_target(weight, weight.mm(cross_), gram_, damping);
  }
};

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

TEST_F(GptqHessianTest, AimsAtTheDenseOutputsAsTheEquationInDoubleDoes) {
  for (const double damping : {0.03, 1e-4}) {
    const at::Tensor wanted = slow(damping);
    const double change = distance(wanted, weight_);
    ASSERT_LT(change, 0.3 * weight_.norm().item<double>());
    for (const bool act_order : {true, false}) {
      EXPECT_LT(distance(aimed(1, damping, act_order), wanted), 1e-4 * change) << damping;
    }
    EXPECT_NEAR(distance(aimed(0.5, damping), weight_), 0.5 * change, 1e-4 * change);
  }
}

TEST_F(GptqHessianTest, LeavesTheWeightWhereInputsAreAsTheyWere) {
  const GptqHessian hessian = prepare_hessian(gram_, true, 0.03, "test");
  const at::Tensor lost = lost_inputs(gram_.clone(), gram_);
  EXPECT_TRUE(aim_at_dense(weight_, lost, hessian, 1).equal(weight_));
}

TEST_F(GptqHessianTest, GoesNoFurtherThanAThirdOfTheWeight) {
  const GptqHessian hessian = prepare_hessian(gram_, true, 0.03, "test");
  const at::Tensor lost = lost_inputs(cross_ + 100 * gram_, gram_);
  const double size = weight_.norm().item<double>();
  EXPECT_NEAR(distance(aim_at_dense(weight_, lost, hessian, 1), weight_), 0.3 * size, 1e-4 * size);
}

TEST_F(GptqHessianTest, LeavesTheWeightWhereNothingCanBeFactored) {
  const at::Tensor nothing = at::zeros({kColumns, kColumns}, at::kDouble);
  const GptqHessian hessian = prepare_hessian(nothing, true, 0.03, "test");
  EXPECT_FALSE(hessian.inverse.ok());
  EXPECT_TRUE(aim_at_dense(weight_, lost_inputs(cross_.clone(), gram_), hessian, 1).equal(weight_));
}

TEST_F(GptqHessianTest, OneForAllLayersOfAnInputGivesEachItsOwnCodes) {
  const GptqOptions options;
  const QuantScheme scheme = scheme_of(4, 32);
  const GptqHessian shared = prepare_hessian(gram_, options.act_order, options.damping, "test");
  for (const unsigned seed : {11u, 12u}) {
    const at::Tensor weight = normal(24, kColumns, seed);
    EXPECT_TRUE(same_weight(gptq_quantize(weight, shared, scheme, options, "test").weight,
                            gptq_quantize(weight, gram_, scheme, options, "test").weight));
  }
}

}  // namespace
}  // namespace attar
