#include "lowrank/output_pca.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <limits>

#include "compress/core/errors.h"
#include "compress/linalg/cholesky.h"
#include "compress/linalg/decomposition.h"
#include "compress/linalg/quadratic_loss.h"

namespace attar {
namespace {

void check_shapes(const at::Tensor& weight, const at::Tensor& gram) {
  require(weight.dim() == 2 && gram.dim() == 2 && gram.size(0) == gram.size(1) &&
              gram.size(0) == weight.size(1) && weight.scalar_type() == at::kDouble &&
              gram.scalar_type() == at::kDouble,
          "output pca", "needs float64 weight [m, n] and gram [n, n], got ", weight.sizes(), " of ",
          c10::toString(weight.scalar_type()), " and ", gram.sizes(), " of ",
          c10::toString(gram.scalar_type()), "; convert them first");
}

// Values that rounding leaves of zeros are no directions.
std::int64_t significant(const at::Tensor& values, std::int64_t side) {
  if (values.numel() == 0) return 0;
  const double floor = std::max(0.0, values[0].item<double>()) * static_cast<double>(side) *
                       std::numeric_limits<double>::epsilon();
  return values.gt(floor).sum().item<std::int64_t>();
}

// Columns made orthonormal again; they nearly are (Cholesky QR).
at::Tensor orthonormal(const at::Tensor& columns) {
  const linalg::TriangularFactor lower = linalg::cholesky(columns.t().mm(columns).contiguous());
  require<NumericRefusal>(lower.ok(), "output pca",
                          "directions are not independent; please report this");
  return columns.mm(linalg::invert_lower(lower.factor).t());
}

}  // namespace

OutputPca output_pca(const at::Tensor& weight, const at::Tensor& gram) {
  check_shapes(weight, gram);
  const std::int64_t out = weight.size(0), in = weight.size(1);
  if (out <= in) {
    const at::Tensor energies = weight.mm(gram).mm(weight.t());
    const linalg::SymmetricEigen eigen = linalg::symmetric_eigen((energies + energies.t()) / 2);
    const std::int64_t rank = significant(eigen.values, in);
    return {eigen.values.narrow(0, 0, rank), eigen.vectors.narrow(1, 0, rank)};
  }
  // M = W S with S S^T = gram has M M^T = W gram W^T; M^T M is the smaller one.
  const at::Tensor m = weight.mm(linalg::square_root(gram));
  const linalg::SymmetricEigen eigen = linalg::symmetric_eigen(m.t().mm(m));
  const std::int64_t rank = significant(eigen.values, out);
  const at::Tensor values = eigen.values.narrow(0, 0, rank);
  return {values, m.mm(eigen.vectors.narrow(1, 0, rank)) / values.sqrt()};
}

Factors truncate(const at::Tensor& weight, const OutputPca& pca, std::int64_t rank) {
  const std::int64_t kept = std::min(rank, pca.basis.size(1));
  at::Tensor left = pca.basis.narrow(1, 0, kept);
  if (weight.size(0) > weight.size(1)) left = orthonormal(left);
  return {left.contiguous(), left.t().mm(weight)};
}

Factors plain_svd(const at::Tensor& weight, std::int64_t rank) {
  const linalg::ThinSvd svd = linalg::thin_svd(weight);
  const std::int64_t kept = std::min(rank, svd.values.size(0));
  const at::Tensor left = svd.left.narrow(1, 0, kept).contiguous();
  return {left, left.t().mm(weight)};
}

double output_energy(const at::Tensor& weight, const at::Tensor& gram) {
  return std::max(0.0, linalg::total(weight.mm(gram) * weight));
}

}  // namespace attar
