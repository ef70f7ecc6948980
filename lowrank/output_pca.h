// Principal directions of a layer's outputs under the calibration distribution: the mathematics of
// cutting a weight to low rank, of a whitened correction, and of a basis shared by several layers.
//
// Shapes: W [m, n], its inputs X [n, T], gram = X X^T [n, n]; all float64.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attar {

// W (X X^T) W^T = basis diag(values) basis^T.
struct OutputPca {
  at::Tensor values;  // [k] descending, not negative; their sum is |W X|^2
  at::Tensor basis;   // [m, k], orthonormal columns
};

// y = left (right x).
struct Factors {
  at::Tensor left;   // [m, r]
  at::Tensor right;  // [r, n]
};

// Directions of the outputs W X by their energy (the whitened SVD of SVD-LLM, Wang et
// al. 2024, arXiv:2403.07378, without a Cholesky factor or an inverse: X X^T may be singular).
// Works on the smaller side of W. k is min(m, n), or less when outputs span less.
//
// Throws BadInput when shapes disagree, NumericRefusal for numbers that are not finite.
OutputPca output_pca(const at::Tensor& weight, const at::Tensor& gram);

// The best approximation of rank `rank` (or k, if that is less): left = U_r, right = U_r^T W. Its
// error |W X - left right X|^2 is the sum of the values that were dropped, the smallest possible
// (Eckart and Young). Applied to a difference W - W' it is the best correction of W' (EoRA, Liu et
// al. 2024, arXiv:2410.21271).
Factors truncate(const at::Tensor& weight, const OutputPca& pca, std::int64_t rank);

// Plain truncated SVD of W, which knows nothing of its inputs: the baseline.
Factors plain_svd(const at::Tensor& weight, std::int64_t rank);

// |D X|^2 = tr(D (X X^T) D^T), not below zero.
double output_energy(const at::Tensor& weight, const at::Tensor& gram);

}  // namespace attar
