#include "compress/linalg/damped_inverse.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "compress/linalg/cholesky.h"

namespace attar::linalg {

std::vector<double> diagonal_of(const at::Tensor& hessian) {
  const std::int64_t n = hessian.size(0);
  std::vector<double> diagonal(static_cast<std::size_t>(n));
  for (std::int64_t j = 0; j < n; ++j) {
    diagonal[j] = hessian.const_data_ptr<double>()[j * (n + 1)];
  }
  return diagonal;
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

at::Tensor damped_copy(const at::Tensor& hessian, const std::vector<std::int64_t>& order,
                       double damp, double dead_value) {
  const std::int64_t n = hessian.size(0);
  at::Tensor copy = at::empty({n, n}, at::kDouble);
  const double* from = hessian.const_data_ptr<double>();
  double* to = copy.data_ptr<double>();
  at::parallel_for(0, n, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const double* row = from + order[i] * n;
      for (std::int64_t j = 0; j < n; ++j) to[i * n + j] = row[order[j]];
      double& diagonal = to[i * n + i];
      diagonal = (diagonal > 0 ? diagonal : dead_value) + damp;
    }
  });
  return copy;
}

DampedInverse damped_inverse(const at::Tensor& hessian, const std::vector<std::int64_t>& order,
                             double damping) {
  constexpr int kSteps = 6;
  DampedInverse result;
  const double mean = mean_of(diagonal_of(hessian));
  if (!(mean > 0)) {
    result.failures.push_back("H is zero: no calibration token reached this layer");
    return result;
  }
  for (int step = 0; step < kSteps; ++step) {
    const TriangularFactor inverse =
        reverse_cholesky_inverse(damped_copy(hessian, order, damping * mean, mean));
    if (inverse.ok()) {
      result.upper = inverse.factor.to(at::kFloat);
      result.damping = damping;
      return result;
    }
    std::ostringstream event;
    event << "H is not positive definite with damping " << damping << " (pivot of input column "
          << order[inverse.bad_pivot] << ")";
    result.failures.push_back(event.str());
    damping = std::max(10 * damping, 1e-4);
  }
  return result;
}

}  // namespace attar::linalg
