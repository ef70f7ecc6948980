// The best values under a mask, which a sweep that never returns to the columns on its left leaves
// open.
#pragma once

#include <ATen/core/Tensor.h>

namespace attar::linalg {

// Lowers tr((V - W) H (V - W)^T) over the values V that a mask keeps, every row by itself, by
// conjugate gradients preconditioned with diag H. A row that they do not lower stays.
//   target   W [O, I] float32
//   hessian  H [I, I] float32, contiguous, symmetric, with a positive diagonal
//   keep     [O, I] uint8, contiguous
//   values   V [O, I] float32, contiguous, 0 where cut; the start, not modified
// `steps` products of [O, I] with H; the worse H is conditioned, the more are left to gain. Does
// not depend on threads.
at::Tensor refit_kept(const at::Tensor& target, const at::Tensor& hessian, const at::Tensor& keep,
                      const at::Tensor& values, int steps);

}  // namespace attar::linalg
