// Random rotations made of Hadamard matrices (H of 1 and -1, H H^T = n I).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attar::linalg {

// x -> x Q with the orthogonal Q = diag(signs) blockdiag(H, ..., H) / sqrt(order of H), which
// spreads every column evenly over its block. H is Sylvester's of 2^k times Paley's (1933) of
// q + 1 for a prime q of the form 4 m + 3, or of 2 (q + 1) for one of the form 4 m + 1. One block
// where these give n (576 = 16 x 36, 896 = 32 x 28, 1536 = 128 x 12); else (172) blocks of the
// largest power of two that divides it. About n (k + b) operations a row, in float64; a row's bits
// depend on that row alone.
class RandomRotation {
 public:
  explicit RandomRotation(std::vector<bool> negative);  // the sign of each of the n columns

  std::int64_t size() const { return static_cast<std::int64_t>(negative_.size()); }
  std::int64_t block() const { return factor_ * power_; }  // order of H

  // [m, k n] float32 -> [m, k n] float32: x Q, or each of the k parts of a row by itself.
  at::Tensor columns(const at::Tensor& x) const;
  // [k n, m] -> [k n, m]: Q^T x.
  at::Tensor rows(const at::Tensor& x) const;

 private:
  void turn(double* x, double* spare) const;  // one row of n, in place

  std::vector<bool> negative_;
  std::int64_t factor_ = 1, power_ = 1;  // H = small [factor, factor] x Sylvester's [power, power]
  at::Tensor small_;
};

}  // namespace attar::linalg
