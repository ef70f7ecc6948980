// The grid of a quantized weight: a scale and a zero for every row and group of
// columns.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/weight.h"

namespace attar {

// Scales and zeros before there are codes. Dequantized as written at ZeroPoint.
//   scale  [O, G] float32, each value representable in scheme.scale_type, never 0 (of a block grid
//          d a: 0 where a is)
//   zero   [O, G] float32: integers (kInteger), minima (kMinimum), undefined (kSymmetric)
struct Grid {
  QuantScheme scheme;
  at::Tensor scale;
  at::Tensor zero;
};

struct GridOptions {
  // false: from the smallest and the largest weight of a group. true: the grid of least weighted
  // squared error found over shrunken ranges and zeros, refined by least squares. Block grids:
  // false: as ggml's own quantizer chooses without an importance matrix.
  bool search = false;
  // Symmetric only: the weight of largest magnitude lies on the code 0, that is -2^(bits-1) with
  // its sign in the scale, in place of a mirrored range.
  bool full_range = false;
};

// Throws UsageError unless bits are 2..8 and the group size divides the columns.
void check_scheme(const QuantScheme& scheme, std::int64_t columns);

// Throws NumericRefusal with row and column of the first NaN or infinity of [O, I] float32 values.
void check_finite(const at::Tensor& values, std::string_view where);

// Chooses the grid of a weight.
//   weight          [O, I] float32, finite (NumericRefusal names the first place that is not)
//   column_weights  [I] double, >= 0: what an error in this column costs; undefined: all alike.
//                   Used by the search only.
Grid choose_grid(const at::Tensor& weight, const QuantScheme& scheme,
                 const GridOptions& options = {}, const at::Tensor& column_weights = {});

// Rounds every weight to the nearest point of its grid (ties to the even code).
QuantizedWeight quantize_to_grid(const at::Tensor& weight, const Grid& grid);

// Values clamped to the range of their grid, [O, I] float32.
at::Tensor clamp_to_grid(const at::Tensor& weight, const Grid& grid);

// [O, I] float32 from codes [O, I] uint8.
at::Tensor dequantize(const at::Tensor& codes, const Grid& grid);

}  // namespace attar
