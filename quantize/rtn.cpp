#include "quantize/rtn.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/sum.h>

namespace attar {

RtnResult rtn_quantize(const at::Tensor& weight, const QuantScheme& scheme,
                       const GridOptions& options, const at::Tensor& column_weights) {
  const Grid grid = choose_grid(weight, scheme, options, column_weights);
  RtnResult result{quantize_to_grid(weight, grid), 0};
  const at::Tensor change = dequantize(result.weight.codes, grid) - weight;
  const double size = weight.square().sum(at::kDouble).item<double>();
  result.relative_error = size > 0 ? change.square().sum(at::kDouble).item<double>() / size : 0.0;
  return result;
}

}  // namespace attar
