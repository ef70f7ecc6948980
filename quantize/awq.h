// AWQ: scales of the input channels under which rounding hurts the outputs least
// (Lin et al. 2023, arXiv:2306.00978). Mathematics only: who divides by the scales is
// the pass's affair.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/grid.h"

namespace attar {

// Weights that read one input, and what is known of this input.
struct AwqProblem {
  std::vector<at::Tensor> weights;  // [O_i, I] float32 each
  at::Tensor gram;                  // [I, I] double: sum of x x^T
  at::Tensor mean_absolute;         // [I] double: mean |x|
  // Columns that must share a scale, [I] int64: equal ids, equal scales (v -> o under grouped-query
  // attention). Undefined: each column for itself.
  at::Tensor tied;
  // What an error of an output row costs, [O_i] double each. Empty: all alike.
  std::vector<at::Tensor> row_importance;
};

struct AwqOptions {
  int steps = 20;            // alpha = i / steps, i = 0..steps
  bool weight_scale = true;  // also try to divide by the weights' own mean magnitude (AutoAWQ)
  std::int64_t sample_rows = 192;  // rows of each weight that the search looks at; 0: all
  // GPTQ follows: choose by the loss that a sweep of GPTQ leaves, not plain rounding (scales that
  // help the one can hurt the other), and try the magnitude of an input that its neighbours do not
  // explain, 1 / sqrt(diag H^-1), beside mean |x|.
  bool for_gptq = false;
  double damping = 0.05;  // of H when for_gptq, as a share of mean(diag H)
  GridOptions grid;       // the grid inside of the search
};

struct AwqScales {
  at::Tensor scale;  // [I] float32, positive: W's columns are multiplied, the input divided
  double alpha = 0;
  double beta = 0;        // exponent of the weights' share
  double loss = 0;        // sum of tr(D H D^T) / sum of tr(W H W^T)
  double plain_loss = 0;  // the same with scales 1; loss <= plain_loss
};

AwqScales search_awq_scales(const AwqProblem& problem, const QuantScheme& scheme,
                            const AwqOptions& options = {});

// The clip search: for every row and group the shrunken range of least output error under the
// group's own block of the Gram matrix.
//   weight  [O, I] float32,  gram  [I, I] double
//   shrink_steps: ranges (1 - i / 20), i = 0..shrink_steps - 1
Grid search_clipped_grid(const at::Tensor& weight, const at::Tensor& gram,
                         const QuantScheme& scheme, int shrink_steps = 10);

// Ids for AwqProblem::tied of an output projection: [query_heads * head_width] int64. Channel c of
// every query head that reads one KV head has one id, which is its row in the value projection.
at::Tensor tied_over_query_heads(std::int64_t query_heads, std::int64_t kv_heads,
                                 std::int64_t head_width);

}  // namespace attar
