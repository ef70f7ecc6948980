// SmoothQuant: scales that move what makes activations hard to round into the weights
// (Xiao et al. 2023, arXiv:2211.10438, section 4), searched for the least error of the
// outputs with both rounded. Mathematics only: who divides by the scales is the pass's affair.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "compress/core/grid.h"

namespace attar {

// Weights that read one input, and what is known of this input.
struct SmoothProblem {
  std::vector<at::Tensor> weights;  // [O_i, I] float32 each
  at::Tensor rows;                  // [T, I] float32, finite: inputs of some tokens
  at::Tensor max_absolute;          // [I] float32: largest |x| of all tokens
  // Columns that must share a scale, [I] int64 (awq.h). Undefined: each column for itself.
  at::Tensor tied;
};

struct SmoothOptions {
  int steps = 10;  // exponents alpha = i / steps, i = 1..steps
};

struct SmoothScales {
  at::Tensor scale;  // [I] float32, positive: W's columns are multiplied, the input divided
  double alpha = 0;
  double loss = 0;        // sum over weights of |y' - y|^2 / |y|^2, y' with both rounded
  double plain_loss = 0;  // the same with scales 1; loss <= plain_loss
};

// Candidates: 1; m^alpha and m^alpha / max|w|^(1 - alpha), with max|x| and with mean|x| of the rows
// as m.
SmoothScales search_smooth_scales(const SmoothProblem& problem, const QuantScheme& scheme,
                                  const SmoothOptions& options = {});

}  // namespace attar
