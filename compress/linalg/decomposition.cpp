#include "compress/linalg/decomposition.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/where.h>

#include <limits>

#include "compress/core/errors.h"
#include "compress/linalg/blas.h"
#include "compress/linalg/cholesky.h"

namespace attar::linalg {
namespace {

void check_matrix(const at::Tensor& matrix, bool square, std::string_view where) {
  require(matrix.dim() == 2 && matrix.scalar_type() == at::kDouble &&
              (!square || matrix.size(0) == matrix.size(1)),
          where, "needs a ", square ? "square " : "", "float64 matrix, got ", matrix.sizes(),
          " of ", c10::toString(matrix.scalar_type()), "; convert it first");
  require<NumericRefusal>(at::isfinite(matrix).all().item<bool>(), where,
                          "the matrix holds a NaN or an infinity; look for tokens or weights that "
                          "are not finite");
}

// +1 or -1 a column, so that its entry of largest magnitude (the first of equals) becomes positive.
at::Tensor signs_of(const at::Tensor& columns) {
  const at::Tensor largest = columns.abs().argmax(0, /*keepdim=*/true);
  const at::Tensor entries = columns.gather(0, largest);
  return at::where(entries.lt(0), -1.0, 1.0).to(at::kDouble);
}

template <class Body>
auto converging(std::string_view where, const Body& body) {
  try {
    keep_blas_on_one_thread();
    return body();
  } catch (const c10::Error& error) {
    throw NumericRefusal(
        message(where, "the iteration did not converge: ", error.what_without_backtrace()));
  }
}

}  // namespace

SymmetricEigen symmetric_eigen(const at::Tensor& matrix) {
  check_matrix(matrix, true, "symmetric_eigen");
  if (matrix.size(0) == 0) return {matrix.diagonal().clone(), matrix.clone()};
  const auto [values, vectors] =
      converging("symmetric_eigen", [&] { return at::linalg_eigh(matrix, "L"); });
  const at::Tensor descending = vectors.flip(1);
  return {values.flip(0).contiguous(), (descending * signs_of(descending)).contiguous()};
}

ThinSvd thin_svd(const at::Tensor& matrix) {
  check_matrix(matrix, false, "thin_svd");
  const auto [left, values, right] =
      converging("thin_svd", [&] { return at::linalg_svd(matrix, /*full_matrices=*/false); });
  if (values.numel() == 0) return {left, values, right.t()};
  const at::Tensor signs = signs_of(left);
  return {(left * signs).contiguous(), values, (right.t() * signs).contiguous()};
}

at::Tensor square_root(const at::Tensor& matrix) {
  const SymmetricEigen eigen = symmetric_eigen(matrix);
  const auto side = static_cast<double>(matrix.size(0));
  if (matrix.size(0) == 0) return matrix.clone();
  const double floor =
      eigen.values[0].item<double>() * side * std::numeric_limits<double>::epsilon();
  const std::int64_t rank = eigen.values.gt(std::max(0.0, floor)).sum().item<std::int64_t>();
  return eigen.vectors.narrow(1, 0, rank) * eigen.values.narrow(0, 0, rank).sqrt();
}

RightSolver::RightSolver(at::Tensor matrix) {
  TriangularFactor lower = linalg::cholesky(std::move(matrix));
  if (lower.ok()) inverse_ = invert_lower(std::move(lower.factor));
}

at::Tensor RightSolver::solve(const at::Tensor& right) const {
  return right.mm(inverse_.t()).mm(inverse_);
}

at::Tensor solve_right(const at::Tensor& right, const at::Tensor& matrix) {
  const RightSolver solver(matrix.clone(at::MemoryFormat::Contiguous));
  return solver.ok() ? solver.solve(right) : at::Tensor();
}

}  // namespace attar::linalg
