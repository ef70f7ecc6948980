// Symmetric eigenvectors and thin singular vectors in float64. LAPACK's bits differ between numbers
// of threads, so each runs on one thread; the products around them may use all.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attar::linalg {

// A = vectors diag(values) vectors^T, largest value first.
struct SymmetricEigen {
  at::Tensor values;   // [n] double, descending
  at::Tensor vectors;  // [n, n] double, orthonormal columns; the largest entry of each is positive
};

//   matrix  [n, n] double, symmetric; the lower triangle is read
// Throws BadInput for another shape or type, NumericRefusal when an entry is not finite or the
// iteration does not converge. About 9 n^3 operations.
SymmetricEigen symmetric_eigen(const at::Tensor& matrix);

// A = left diag(values) right^T with k = min(m, n).
struct ThinSvd {
  at::Tensor left;    // [m, k] double, orthonormal columns; the largest entry of each is positive
  at::Tensor values;  // [k] double, descending, not negative
  at::Tensor right;   // [n, k] double, orthonormal columns
};

//   matrix  [m, n] double. Throws as symmetric_eigen does.
ThinSvd thin_svd(const at::Tensor& matrix);

// S with S S^T = A for a symmetric matrix without negative eigenvalues: vectors diag(sqrt(values)).
// Values below n eps of the largest, which rounding leaves of zeros, count as zero; S has no
// columns for them. Unlike a Cholesky factor it exists for a singular matrix.
//   matrix  [n, n] double, symmetric; returns [n, rank] double
at::Tensor square_root(const at::Tensor& matrix);

// X = right A^-1 for a symmetric positive definite A and one right side after the other: two
// triangular products each.
class RightSolver {
 public:
  // [n, n] double, contiguous, taken over: its memory becomes that of the inverse factor.
  explicit RightSolver(at::Tensor matrix);
  // False when the matrix is not positive definite: callers climb a ladder of damping.
  bool ok() const { return inverse_.defined(); }
  at::Tensor solve(const at::Tensor& right) const;  // [m, n] double

 private:
  at::Tensor inverse_;  // of the lower factor: A^-1 = inverse^T inverse
};

// The same for one right side. Undefined when the matrix is not positive definite.
at::Tensor solve_right(const at::Tensor& right, const at::Tensor& matrix);

}  // namespace attar::linalg
