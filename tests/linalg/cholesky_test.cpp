#include "compress/linalg/cholesky.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"

namespace attar::linalg {
namespace {

// X^T X + ridge, conditioned like a damped Hessian: [n, n] double.
at::Tensor positive_definite(std::int64_t n, double ridge = 0.05) {
  const at::Tensor x = at::arange(2 * n * n, at::kDouble).mul(0.911).sin().reshape({2 * n, n});
  return x.t().mm(x) / static_cast<double>(n) + at::eye(n, at::kDouble) * ridge;
}

double largest(const at::Tensor& values) { return values.abs().max().item<double>(); }

class CholeskyOf : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { set_up_numerics(); }
};

// |L L^T - A| <= (n + 1) eps |L||L^T| (Higham 10.3).
TEST_P(CholeskyOf, GivesTheMatrixBack) {
  const at::Tensor matrix = positive_definite(GetParam());
  const TriangularFactor lower = linalg::cholesky(matrix.clone());
  ASSERT_TRUE(lower.ok());
  EXPECT_TRUE(lower.factor.equal(lower.factor.tril()));
  const double bound = static_cast<double>(GetParam() + 1) * 1.2e-16 * largest(matrix) * 4;
  EXPECT_LE(largest(lower.factor.mm(lower.factor.t()) - matrix), bound);
}

TEST_P(CholeskyOf, InverseTimesFactorIsOne) {
  const at::Tensor lower = linalg::cholesky(positive_definite(GetParam())).factor;
  const at::Tensor inverse = invert_lower(lower.clone());
  EXPECT_TRUE(inverse.equal(inverse.tril()));
  EXPECT_LE(largest(inverse.mm(lower) - at::eye(GetParam(), at::kDouble)), 1e-11);
}

TEST_P(CholeskyOf, UpperFactorOfTheInverseNeedsNoInverse) {
  const at::Tensor matrix = positive_definite(GetParam());
  const at::Tensor upper = reverse_cholesky_inverse(matrix.clone()).factor;
  EXPECT_TRUE(upper.equal(upper.triu()));
  EXPECT_LE(largest(upper.t().mm(upper).mm(matrix) - at::eye(GetParam(), at::kDouble)), 1e-10);
}

TEST_P(CholeskyOf, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  const at::Tensor matrix = positive_definite(GetParam());
  set_threads(1);
  const at::Tensor one = reverse_cholesky_inverse(matrix.clone()).factor;
  set_threads(2);
  const at::Tensor two = reverse_cholesky_inverse(matrix.clone()).factor;
  set_threads(before);
  EXPECT_TRUE(one.equal(two));
}

INSTANTIATE_TEST_SUITE_P(Side, CholeskyOf, testing::Values(1, 2, 31, 33, 64, 129, 200, 421));

// A = L L^T with L = [2 0; 1 3].
TEST(Cholesky, MatchesAHandWorkedFactor) {
  const at::Tensor matrix = at::tensor({4.0, 2.0, 2.0, 10.0}, at::kDouble).reshape({2, 2});
  const at::Tensor expected = at::tensor({2.0, 0.0, 1.0, 3.0}, at::kDouble).reshape({2, 2});
  EXPECT_TRUE(linalg::cholesky(matrix).factor.equal(expected));
}

// Column 70 is column 3 again: the pivot there is 0 up to rounding, so a negative one is planted.
TEST(Cholesky, SaysWhereAMatrixIsNotPositiveDefinite) {
  at::Tensor matrix = positive_definite(150);
  matrix.select(0, 70).select(0, 70).fill_(-1.0);
  const TriangularFactor lower = linalg::cholesky(matrix.clone());
  EXPECT_FALSE(lower.ok());
  EXPECT_EQ(lower.bad_pivot, 70);
  EXPECT_EQ(reverse_cholesky_inverse(matrix.clone()).bad_pivot, 70);
  matrix.select(0, 70).select(0, 70).fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(linalg::cholesky(matrix.clone()).bad_pivot, 70);
}

TEST(Cholesky, RefusesWhatIsNoSquareOfDoubles) {
  EXPECT_THROW(linalg::cholesky(at::eye(3, at::kFloat)), BadInput);
  EXPECT_THROW(linalg::cholesky(at::arange(6, at::kDouble).reshape({2, 3})), BadInput);
}

}  // namespace
}  // namespace attar::linalg
