#include "quantize/rtn.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace attar {
namespace {

// The sum of squares, in double: those of numbers near 1e38 are beyond float32. Rows are summed
// one after the other.
double squares(const at::Tensor& values) {
  const at::Tensor plain = values.contiguous();
  const std::int64_t rows = plain.size(0), columns = plain.size(1);
  const float* data = plain.const_data_ptr<float>();
  std::vector<double> by_row(static_cast<std::size_t>(rows));
  at::parallel_for(0, rows, 1 + (1 << 14) / columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      double lanes[8] = {};
      for (std::int64_t j = 0; j < columns; ++j) {
        const auto value = static_cast<double>(data[row * columns + j]);
        lanes[j % 8] += value * value;
      }
      by_row[row] = std::accumulate(lanes, lanes + 8, 0.0);
    }
  });
  return std::accumulate(by_row.begin(), by_row.end(), 0.0);
}

}  // namespace

RtnResult rtn_quantize(const at::Tensor& weight, const QuantScheme& scheme,
                       const GridOptions& options, const at::Tensor& column_weights) {
  const Grid grid = choose_grid(weight, scheme, options, column_weights);
  RtnResult result{quantize_to_grid(weight, grid), 0};
  const double size = squares(weight);
  if (size > 0) {
    result.relative_error = squares(dequantize(result.weight.codes, grid).sub_(weight)) / size;
  }
  return result;
}

RtnResult rtn_quantize_weight(const Weight& weight, const QuantScheme& scheme,
                              const GridOptions& options) {
  constexpr std::int64_t kValues = std::int64_t{1} << 20;
  const auto* plain = std::get_if<DenseWeight>(&weight);
  const auto [rows, columns] = shape_of(weight);
  const std::int64_t step = std::max<std::int64_t>(1, kValues / std::max<std::int64_t>(1, columns));
  if (plain == nullptr || rows <= step) return rtn_quantize(dense(weight), scheme, options);
  check_scheme(scheme, columns);
  const std::int64_t groups = scheme.groups(columns);
  RtnResult result{
      {scheme, at::empty({rows, columns}, at::kByte), at::empty({rows, groups}, at::kFloat), {}},
      0};
  if (scheme.zero_point != ZeroPoint::kSymmetric) {
    result.weight.zero = at::empty({rows, groups}, at::kFloat);
  }
  double size = 0, error = 0;
  for (std::int64_t row = 0; row < rows; row += step) {
    const std::int64_t count = std::min(step, rows - row);
    const at::Tensor values = plain->values.narrow(0, row, count).to(at::kFloat);
    const RtnResult part = rtn_quantize(values, scheme, options);
    result.weight.codes.narrow(0, row, count).copy_(part.weight.codes);
    result.weight.scale.narrow(0, row, count).copy_(part.weight.scale);
    if (part.weight.zero.defined()) {
      result.weight.zero.narrow(0, row, count).copy_(part.weight.zero);
    }
    const double part_size = squares(values);
    size += part_size;
    error += part.relative_error * part_size;
  }
  if (size > 0) result.relative_error = error / size;
  return result;
}

}  // namespace attar
