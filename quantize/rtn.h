// Plain rounding to nearest: the baseline of every other quantizer.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/grid.h"

namespace attar {

struct RtnResult {
  QuantizedWeight weight;
  double relative_error = 0;  // |Q - W|^2 / |W|^2
};

//   weight  [O, I] float32
RtnResult rtn_quantize(const at::Tensor& weight, const QuantScheme& scheme,
                       const GridOptions& options = {}, const at::Tensor& column_weights = {});

// The same of a weight of any kind; plain values are taken some rows at a time, so that little more
// than the codes is held. No column weights.
RtnResult rtn_quantize_weight(const Weight& weight, const QuantScheme& scheme,
                              const GridOptions& options = {});

}  // namespace attar
