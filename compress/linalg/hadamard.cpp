#include "compress/linalg/hadamard.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"

namespace attar::linalg {
namespace {

bool prime(std::int64_t n) {
  if (n < 2) return false;
  for (std::int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// Rows and columns of 1, and where they do not meet the Legendre symbol of i - j: C C^T = q I.
at::Tensor conference(std::int64_t q) {
  std::vector<double> symbol(static_cast<std::size_t>(q), -1);
  for (std::int64_t i = 1; i < q; ++i) symbol[static_cast<std::size_t>(i * i % q)] = 1;
  symbol[0] = 0;
  at::Tensor c = at::ones({q + 1, q + 1}, at::kDouble);
  auto* value = c.mutable_data_ptr<double>();
  value[0] = 0;
  for (std::int64_t i = 0; i < q; ++i) {
    if (q % 4 == 3) value[(i + 1) * (q + 1)] = -1;  // skew, where the symbol is
    for (std::int64_t j = 0; j < q; ++j) {
      value[(i + 1) * (q + 1) + j + 1] = symbol[static_cast<std::size_t>((i - j + q) % q)];
    }
  }
  return c;
}

// Of order `order` by Paley, or undefined.
at::Tensor paley(std::int64_t order) {
  if (order == 1) return at::ones({1, 1}, at::kDouble);
  if (prime(order - 1) && (order - 1) % 4 == 3) {
    at::Tensor h = conference(order - 1);
    h.diagonal().add_(1);
    return h;
  }
  const std::int64_t half = order / 2;
  if (order % 2 != 0 || !prime(half - 1) || (half - 1) % 4 != 1) return {};
  // Each entry c of C becomes c [1 1; 1 -1], each zero of its diagonal [1 -1; -1 -1].
  const at::Tensor c = conference(half - 1);
  const at::Tensor eye = (c == 0).to(at::kDouble);
  at::Tensor h = at::zeros({half, 2, half, 2}, at::kDouble);
  h.select(1, 0).select(2, 0).copy_(c + eye);
  h.select(1, 0).select(2, 1).copy_(c - eye);
  h.select(1, 1).select(2, 0).copy_(c - eye);
  h.select(1, 1).select(2, 1).copy_(-c - eye);
  return h.reshape({order, order});
}

// The factor of least order that a power of two completes to `order`, or undefined.
at::Tensor smallest_factor(std::int64_t order) {
  std::int64_t factor = order;
  while (factor % 2 == 0) factor /= 2;
  for (; factor <= order; factor *= 2) {
    if (at::Tensor h = paley(factor); h.defined()) return h;
  }
  return {};
}

}  // namespace

RandomRotation::RandomRotation(std::vector<bool> negative) : negative_(std::move(negative)) {
  require<UsageError>(size() > 0, "rotation", "there is nothing to rotate");
  small_ = smallest_factor(size());
  if (!small_.defined()) small_ = at::ones({1, 1}, at::kDouble);
  factor_ = small_.size(0);
  power_ = factor_ > 1 ? size() / factor_ : size() & -size();
}

void RandomRotation::turn(double* x, double* spare) const {
  const auto* small = small_.const_data_ptr<double>();
  const double scale = 1 / std::sqrt(static_cast<double>(block()));
  for (std::int64_t c = 0; c < size(); ++c) {
    x[c] *= negative_[static_cast<std::size_t>(c)] ? -scale : scale;
  }
  for (std::int64_t first = 0; first < size(); first += block()) {
    double* part = x + first;
    for (std::int64_t step = 1; step < power_; step *= 2) {
      for (std::int64_t i = 0; i < block(); i += 2 * step) {
        for (std::int64_t j = i; j < i + step; ++j) {
          const double a = part[j], b = part[j + step];
          part[j] = a + b;
          part[j + step] = a - b;
        }
      }
    }
    if (factor_ == 1) continue;
    std::fill_n(spare, block(), 0.0);
    for (std::int64_t from = 0; from < factor_; ++from) {
      for (std::int64_t to = 0; to < factor_; ++to) {
        const double h = small[from * factor_ + to];
        for (std::int64_t c = 0; c < power_; ++c) {
          spare[to * power_ + c] += h * part[from * power_ + c];
        }
      }
    }
    std::copy_n(spare, block(), part);
  }
}

at::Tensor RandomRotation::columns(const at::Tensor& x) const {
  require(x.dim() == 2 && x.size(1) % size() == 0 && x.scalar_type() == at::kFloat, "rotation",
          "needs [m, k x ", size(), "] float32");
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty_like(from);
  const auto* values = from.const_data_ptr<float>();
  auto* out = to.mutable_data_ptr<float>();
  at::parallel_for(0, x.numel() / size(), 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> row(negative_.size()), spare(static_cast<std::size_t>(block()));
    for (std::int64_t r = begin; r < end; ++r) {
      std::copy_n(values + r * size(), size(), row.begin());
      turn(row.data(), spare.data());
      std::transform(row.begin(), row.end(), out + r * size(),
                     [](double v) { return static_cast<float>(v); });
    }
  });
  return to;
}

at::Tensor RandomRotation::rows(const at::Tensor& x) const {
  return columns(x.t()).t().contiguous();
}

}  // namespace attar::linalg
