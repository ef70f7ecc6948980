// SparseGPT: cuts the weights whose loss is cheapest for the others to make up, column after
// column, and lets them make up for it (Frantar and Alistarh 2023, arXiv:2301.00774).
// The same sweep rounds, where asked, so that each step answers for what the other lost.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "compress/core/grid.h"
#include "compress/linalg/sweep_hessian.h"
#include "prune/sparsity.h"

namespace attar {

struct SparseGptOptions {
  int block_size =
      128;  // columns among which one share is cut, and between two updates of the rest
  double damping = 0.01;              // share of mean(diag H) added to diag H; x10 up to 5 times
  std::optional<QuantScheme> scheme;  // round what stays on this grid in the same sweep
  bool search = true;                 // of the grid, by squared error weighted with diag H
  // Steps towards the best values under the mask (kept_refit.h), without a scheme. Left out where
  // float32 does not hold the products of these numbers.
  int refits = 0;
  // What to do when no damping makes H positive definite: cut by magnitude, or throw
  // NumericRefusal.
  bool cut_plainly_on_failure = true;
};

struct SparseGptResult {
  at::Tensor values;                         // [O, I] float32, zeros where cut
  at::Tensor keep;                           // [O, I] bool
  std::optional<QuantizedWeight> quantized;  // with a scheme: the same values as codes
  double loss = 0;            // tr(D H D^T) / tr(W H W^T), D = values - W, H without damping
  double magnitude_loss = 0;  // the same for magnitude pruning in this pattern, not rounded
  double identity_gap = 0;    // of the sweep's own sum of losses and tr(D H D^T) with damped H
  double damping = 0;         // what was used; 0: H was not used
  bool cut_plainly = false;
  std::vector<std::int64_t> dead_columns;  // never active: they count as an average input
  std::vector<std::string> fallbacks;      // one sentence each
};

// Prunes one weight matrix. Unstructured: exactly floor(sparsity * O * I) weights in all, shared
// out evenly over blocks of columns; within a block the lowest w^2 / U_jj^2 of all rows. N:M: in
// each row the lowest of every group, chosen when the sweep reaches it.
//   weight   [O, I] float32; not modified
//   hessian  [I, I] double, symmetric: sum of x x^T over calibration tokens (any scale)
// O(O I^2 + I^3) time, O(O I + I^2) memory. Does not depend on threads.
//
// Throws UsageError if shapes or options disagree, DoesNotFit if groups do not divide the columns,
// NumericRefusal on a NaN or an infinity and, if the options say so, when H cannot be factored.
SparseGptResult sparsegpt_prune(const at::Tensor& weight, const at::Tensor& hessian,
                                const SparsityPattern& pattern,
                                const SparseGptOptions& options = {},
                                std::string_view where = "sparsegpt");

// The same for one of several layers that read the same input. `hessian` was prepared with the
// options' damping and without act_order.
SparseGptResult sparsegpt_prune(const at::Tensor& weight, const linalg::SweepHessian& hessian,
                                const SparsityPattern& pattern, const SparseGptOptions& options,
                                std::string_view where);

}  // namespace attar
