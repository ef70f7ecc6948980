// What lowers tr(D H D^T) after the sweep of GPTQ: scales refitted under the whole H with codes
// fixed, and codes moved one at a time with scales fixed. Both only ever lower the loss of a row.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "compress/core/weight.h"

namespace attar {

// For every row the scales (and real minima) that minimize (w - q) H (w - q)^T with the codes as
// they are; a row keeps its old ones unless the loss falls after rounding to the stored type.
// Changes `quantized.scale` and `.zero` in place; returns the number of changed rows.
std::int64_t refit_scales(const at::Tensor& weight, const at::Tensor& hessian,
                          QuantizedWeight& quantized);

// One pass of coordinate descent: every code in turn moves to the grid point of least loss, the
// others as they are. Changes `quantized.codes` in place; returns the number of moved codes.
//   keep  [O, I] uint8, contiguous, or undefined: codes where it is 0 stay
std::int64_t descend(const at::Tensor& weight, const at::Tensor& hessian,
                     QuantizedWeight& quantized, const at::Tensor& keep = {});

}  // namespace attar
