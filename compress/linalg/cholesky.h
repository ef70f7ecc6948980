// Cholesky factors in float64, blocked over matrix products, so that the bits do not depend on the
// number of threads (LAPACK's do). Each function takes its matrix over: pass a clone to keep it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attar::linalg {

// A triangular factor, or the place where the matrix turned out not to be positive definite: a
// value and not an error, since callers climb a ladder of damping.
struct TriangularFactor {
  at::Tensor factor;            // [n, n] double, zeros in the other triangle; undefined if failed
  std::int64_t bad_pivot = -1;  // first row whose pivot is not a positive finite number

  bool ok() const { return bad_pivot < 0; }
};

// Lower L with A = L L^T.
//   matrix  [n, n] double, contiguous; the lower triangle is read
// n^3/3 multiplications.
TriangularFactor cholesky(at::Tensor matrix);

// Inverse of a lower triangular matrix, [n, n] double. n^3/3 multiplications. The diagonal must
// have no zero.
at::Tensor invert_lower(at::Tensor lower);

// Upper U with A^-1 = U^T U, without forming A^-1: with J the flip of the order, J A J = R R^T and
// U = (J R J)^-1.
//   matrix  [n, n] double, contiguous, symmetric positive definite
TriangularFactor reverse_cholesky_inverse(at::Tensor matrix);

}  // namespace attar::linalg
