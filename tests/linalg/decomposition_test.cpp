#include "compress/linalg/decomposition.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <limits>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"

namespace attar::linalg {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

at::Tensor waves(std::int64_t rows, std::int64_t columns) {
  return at::arange(rows * columns, at::kDouble).mul(0.911).sin().reshape({rows, columns});
}

double largest(const at::Tensor& values) {
  return values.numel() == 0 ? 0 : values.abs().max().item<double>();
}

// Columns are orthonormal up to the backward error of the factorization, a modest multiple of n
// eps.
void expect_orthonormal(const at::Tensor& columns) {
  const at::Tensor gram = columns.t().mm(columns);
  EXPECT_LE(largest(gram - at::eye(gram.size(0), at::kDouble)),
            16 * static_cast<double>(columns.size(0)) * kEpsilon);
}

void expect_descending(const at::Tensor& values) {
  EXPECT_TRUE((values.slice(0, 1) <= values.slice(0, 0, -1)).all().item<bool>());
}

// For 1 thread and 2; `body` gives the tensors to compare.
template <class Body>
void expect_same_bits(const Body& body) {
  const int before = threads();
  set_threads(1);
  const std::vector<at::Tensor> one = body();
  set_threads(2);
  const std::vector<at::Tensor> two = body();
  EXPECT_EQ(threads(), 2);  // what a factorization sets aside it gives back
  set_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(two[i])) << i;
}

class DecompositionOf : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { set_up_numerics(); }
};

TEST_P(DecompositionOf, EigenvectorsGiveTheMatrixBack) {
  const at::Tensor x = waves(GetParam(), GetParam());
  const at::Tensor matrix = x + x.t();
  const SymmetricEigen eigen = symmetric_eigen(matrix);
  expect_orthonormal(eigen.vectors);
  expect_descending(eigen.values);
  EXPECT_LE(largest((eigen.vectors * eigen.values).mm(eigen.vectors.t()) - matrix),
            64 * static_cast<double>(GetParam()) * kEpsilon * largest(eigen.values));
}

TEST_P(DecompositionOf, SingularVectorsGiveTheMatrixBackWideAndTall) {
  for (const std::int64_t other : {GetParam(), GetParam() + 13}) {
    for (const at::Tensor& matrix :
         {waves(GetParam(), other), waves(GetParam(), other).t().contiguous()}) {
      const ThinSvd svd = thin_svd(matrix);
      expect_orthonormal(svd.left);
      expect_orthonormal(svd.right);
      expect_descending(svd.values);
      EXPECT_GE(svd.values.min().item<double>(), 0);
      EXPECT_LE(largest((svd.left * svd.values).mm(svd.right.t()) - matrix),
                64 * static_cast<double>(other) * kEpsilon * largest(svd.values));
    }
  }
}

TEST_P(DecompositionOf, HasTheSameBitsForOneThreadAndTwo) {
  const at::Tensor x = waves(GetParam(), GetParam());
  expect_same_bits([&] {
    const SymmetricEigen eigen = symmetric_eigen(x + x.t());
    const ThinSvd svd = thin_svd(x);
    return std::vector<at::Tensor>{eigen.values, eigen.vectors, svd.left, svd.values, svd.right};
  });
}

TEST_P(DecompositionOf, SquareRootOfASingularMatrixHasItsRank) {
  const std::int64_t rank = (GetParam() + 1) / 2;
  const at::Tensor x = waves(GetParam(), rank);
  const at::Tensor matrix = x.mm(x.t());
  const at::Tensor root = square_root(matrix);
  EXPECT_LE(root.size(1), rank);  // waves of one length may depend on one another
  EXPECT_LE(largest(root.mm(root.t()) - matrix),
            64 * static_cast<double>(GetParam()) * kEpsilon * largest(matrix));
}

TEST_P(DecompositionOf, SolvesFromTheRight) {
  const at::Tensor x = waves(GetParam(), GetParam());
  const at::Tensor matrix = x.mm(x.t()) + at::eye(GetParam(), at::kDouble);
  const at::Tensor right = waves(5, GetParam());
  EXPECT_LE(largest(solve_right(right, matrix).mm(matrix) - right), 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Side, DecompositionOf, testing::Values(1, 2, 33, 129, 260));

// [2 1; 1 2] has (1, 1)/sqrt 2 with 3 and (1, -1)/sqrt 2 with 1.
TEST(SymmetricEigen, MatchesAHandWorkedMatrix) {
  const SymmetricEigen eigen =
      symmetric_eigen(at::tensor({2.0, 1.0, 1.0, 2.0}, at::kDouble).reshape({2, 2}));
  EXPECT_NEAR(eigen.values[0].item<double>(), 3, 1e-15);
  EXPECT_NEAR(eigen.values[1].item<double>(), 1, 1e-15);
  EXPECT_NEAR(eigen.vectors[0][0].item<double>(), std::sqrt(0.5), 1e-15);
  EXPECT_NEAR(eigen.vectors[1][0].item<double>(), std::sqrt(0.5), 1e-15);
}

TEST(SymmetricEigen, SignsDoNotDependOnLapack) {
  const at::Tensor x = waves(40, 40);
  const at::Tensor vectors = symmetric_eigen(x + x.t()).vectors;
  EXPECT_TRUE((std::get<0>(vectors.max(0)) >= -std::get<0>(vectors.min(0))).all().item<bool>());
}

TEST(Decomposition, RefusesWhatIsNotAFiniteFloat64Matrix) {
  at::Tensor matrix = at::eye(3, at::kDouble);
  EXPECT_THROW(symmetric_eigen(matrix.to(at::kFloat)), BadInput);
  EXPECT_THROW(symmetric_eigen(matrix.narrow(0, 0, 2)), BadInput);
  matrix[1][1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(symmetric_eigen(matrix), NumericRefusal);
  EXPECT_THROW(thin_svd(matrix), NumericRefusal);
}

TEST(SolveRight, IsUndefinedForAMatrixThatIsNotPositiveDefinite) {
  EXPECT_FALSE(solve_right(waves(2, 3), -at::eye(3, at::kDouble)).defined());
}

}  // namespace
}  // namespace attar::linalg
