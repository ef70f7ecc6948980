// GPTQ: rounds column after column and moves each rounding error onto the columns still free
// (Frantar et al. 2022, arXiv:2210.17323).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/grid.h"
#include "compress/linalg/sweep_hessian.h"

namespace attar {

struct GptqOptions {
  bool act_order = true;      // columns of large diag H first; groups stay contiguous
  bool static_groups = true;  // grids from the original weight; act_order needs it
  bool search = true;         // grids by weighted squared error; false: min-max
  int block_size = 128;       // columns between two updates of the rest; changes speed only
  double damping = 0.01;      // share of mean(diag H) added to diag H; x10 up to 5 times (the
                              // paper's; the pass has 0.03)
  // Refits of scales under H, each followed by a second sweep, and passes of coordinate descent
  // over the codes, at most. Both lower the layer's loss, neither SmolLM2's KL (0.156 with 2 and 4
  // against 0.154 without, W4 g64, 16k tokens).
  // Left out where float32 does not hold the products of these numbers.
  int refits = 0;
  int descents = 0;
  // Weights that are 0 stay 0 (a mask of an earlier pass) on grids that hold it: [O, I] bool, or
  // undefined.
  at::Tensor keep = {};
  // What to do when no damping makes H positive definite: round plainly, or throw NumericRefusal.
  bool round_plainly_on_failure = true;
};

struct GptqResult {
  QuantizedWeight weight;
  double loss = 0;          // tr(D H D^T) / tr(W H W^T), D = Q - W, H without damping
  double rtn_loss = 0;      // the same for plain min-max rounding
  double identity_gap = 0;  // relative difference of the sweep's own sum of losses and
                            // tr(D H D^T) with damped H: a self-check, about 1e-5;
                            // 1 where the sweep left float32
  double damping = 0;       // what was used; 0: H was not used
  bool rounded_plainly = false;
  // Rows that are plainly rounded after all: where the sweep left the layer with more loss than
  // plain rounding does (an H that says next to nothing, numbers near the end of float32), those
  // that it made worse. So no layer is worse than plainly rounded.
  std::int64_t plain_rows = 0;
  std::vector<std::int64_t> dead_columns;  // never active: rounded plainly
  std::vector<std::string> fallbacks;      // one sentence each
};

// Quantizes one weight matrix.
//   weight   [O, I] float32; not modified
//   hessian  [I, I] double, symmetric: sum of x x^T over calibration tokens (any scale)
//   where    names the layer in messages
// O(O I^2 + I^3) time, O(O I + I^2) memory. The result does not depend on threads or block_size
// (the latter up to float32 rounding).
//
// Throws UsageError if shapes or options disagree, NumericRefusal on a NaN or an infinity (with its
// place) and, if the options say so, when H cannot be factored.
GptqResult gptq_quantize(const at::Tensor& weight, const at::Tensor& hessian,
                         const QuantScheme& scheme, const GptqOptions& options = {},
                         std::string_view where = "gptq");

// The same for one of several layers that read the same input. `hessian` was prepared with the
// options' act_order and damping.
GptqResult gptq_quantize(const at::Tensor& weight, const linalg::SweepHessian& hessian,
                         const QuantScheme& scheme, const GptqOptions& options,
                         std::string_view where);

}  // namespace attar
