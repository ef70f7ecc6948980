#include "compress/core/grid.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cmath>
#include <vector>

#include "compress/core/block_grid.h"
#include "compress/core/errors.h"
#include "compress/core/group_search.h"
#include "compress/core/levels.h"

namespace attar {
namespace {

struct Layout {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t group;   // columns of a group
  std::int64_t groups;  // groups of a row
};

Layout layout_of(const at::Tensor& weight, const QuantScheme& scheme) {
  require<UsageError>(weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.numel() > 0,
                      "grid", "the weight must be float32 [outputs, inputs], got ", weight.sizes(),
                      " of ", c10::toString(weight.scalar_type()), "; convert it first");
  const std::int64_t columns = weight.size(1);
  check_scheme(scheme, columns);
  const std::int64_t group = scheme.group_size == 0 ? columns : scheme.group_size;
  return {weight.size(0), columns, group, columns / group};
}

// Calls visit(row, group) for all of them, rows in parallel.
template <class Visit>
void for_each_group(const Layout& layout, const Visit& visit) {
  const std::int64_t grain = 1 + (1 << 14) / layout.columns;
  at::parallel_for(0, layout.rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t group = 0; group < layout.groups; ++group) visit(row, group);
    }
  });
}

// The grid of one group as plain numbers; the zero of a symmetric grid is the middle code.
GroupGrid group_grid(const Grid& grid, const float* scale, const float* zero, std::int64_t index) {
  return {scale[index], zero == nullptr ? zero_code(grid.scheme) : zero[index]};
}

const float* zeros_of(const Grid& grid) {
  return grid.scheme.zero_point == ZeroPoint::kSymmetric ? nullptr
                                                         : grid.zero.const_data_ptr<float>();
}

void check_grid(const Layout& layout, const Grid& grid) {
  const auto fits = [&](const at::Tensor& part) {
    return part.defined() && part.scalar_type() == at::kFloat && part.is_contiguous() &&
           part.dim() == 2 && part.size(0) == layout.rows && part.size(1) == layout.groups;
  };
  require<UsageError>(
      fits(grid.scale) && (grid.scheme.zero_point == ZeroPoint::kSymmetric || fits(grid.zero)),
      "grid", "scale and zero must be contiguous float32 [", layout.rows, ", ", layout.groups,
      "]; choose the grid from this weight");
}

}  // namespace

void check_scheme(const QuantScheme& scheme, std::int64_t columns) {
  require<UsageError>(scheme.activation_bits == 0 || scheme.activation_bits == 8, "grid",
                      "activations are rounded to 8 bits or not (0), got ", scheme.activation_bits);
  if (scheme.block != BlockGrid::kNone) {
    QuantScheme own = block_scheme(scheme.block);
    if (scheme.block == BlockGrid::kFp8) own.activation_bits = scheme.activation_bits;
    require<UsageError>(scheme == own, "grid", "a grid of ", to_string(scheme.block),
                        " is that of block_scheme");
    const std::int64_t together = std::max<std::int64_t>(1, scheme.block_columns());
    require<UsageError>(columns % together == 0, "grid", to_string(scheme.block),
                        " needs input features in multiples of ", together, ", got ", columns,
                        scheme.floating() ? "; choose FP8, which takes any rows"
                                          : "; choose a type with blocks of 32");
    return;
  }
  require<UsageError>(scheme.bits >= 2 && scheme.bits <= 8, "grid", "bits must be in [2, 8], got ",
                      scheme.bits);
  require<UsageError>(
      scheme.group_size >= 0 && columns % std::max<std::int64_t>(1, scheme.group_size) == 0, "grid",
      "group_size must divide the input features, got group_size=", scheme.group_size,
      ", input features=", columns, "; choose a divisor, or 0 for one group a row");
  require<UsageError>(scheme.scale_type == at::kHalf || scheme.scale_type == at::kBFloat16 ||
                          scheme.scale_type == at::kFloat,
                      "grid", "scales must be float16, bfloat16 or float32, got ",
                      c10::toString(scheme.scale_type));
}

Grid choose_grid(const at::Tensor& weight, const QuantScheme& scheme, const GridOptions& options,
                 const at::Tensor& column_weights) {
  const Layout layout = layout_of(weight, scheme);
  const at::Tensor values = weight.contiguous();
  check_finite(values, "grid");
  const std::vector<float> cost = column_costs(column_weights, layout.columns);
  if (scheme.block != BlockGrid::kNone && !scheme.floating()) {
    return choose_block_grid(values, scheme.block, options.search, cost);
  }
  Grid grid{scheme, at::empty({layout.rows, layout.groups}, at::kFloat), {}};
  if (scheme.zero_point != ZeroPoint::kSymmetric) grid.zero = at::empty_like(grid.scale);
  const float* data = values.const_data_ptr<float>();
  float* scale = grid.scale.data_ptr<float>();
  float* zero = grid.zero.defined() ? grid.zero.data_ptr<float>() : nullptr;
  const GroupRule rule = rule_of(scheme, options);
  for_each_group(layout, [&](std::int64_t row, std::int64_t group) {
    const std::int64_t first = group * layout.group;
    const GroupGrid chosen =
        choose_group(data + row * layout.columns + first, cost.data() + first, layout.group, rule);
    scale[row * layout.groups + group] = chosen.scale;
    if (zero != nullptr) zero[row * layout.groups + group] = chosen.zero;
  });
  return grid;
}

QuantizedWeight quantize_to_grid(const at::Tensor& weight, const Grid& grid) {
  const Layout layout = layout_of(weight, grid.scheme);
  check_grid(layout, grid);
  const at::Tensor values = weight.contiguous();
  check_finite(values, "grid");
  at::Tensor codes = at::empty(weight.sizes(), at::kByte);
  const float* data = values.const_data_ptr<float>();
  const float* scale = grid.scale.const_data_ptr<float>();
  const float* zero = zeros_of(grid);
  std::uint8_t* out = codes.data_ptr<std::uint8_t>();
  const GroupRule rule = rule_of(grid.scheme);
  for_each_group(layout, [&](std::int64_t row, std::int64_t group) {
    const std::int64_t first = row * layout.columns + group * layout.group;
    code_group(data + first, layout.group,
               group_grid(grid, scale, zero, row * layout.groups + group), rule, out + first);
  });
  return {grid.scheme, codes, grid.scale, grid.zero};
}

at::Tensor dequantize(const at::Tensor& codes, const Grid& grid) {
  const Layout layout{codes.size(0), codes.size(1),
                      grid.scheme.group_size == 0 ? codes.size(1) : grid.scheme.group_size,
                      grid.scheme.groups(codes.size(1))};
  check_grid(layout, grid);
  const at::Tensor plain = codes.contiguous();
  at::Tensor values = at::empty(codes.sizes(), at::kFloat);
  const std::uint8_t* code = plain.const_data_ptr<std::uint8_t>();
  const float* scale = grid.scale.const_data_ptr<float>();
  const float* zero = zeros_of(grid);
  float* out = values.data_ptr<float>();
  const GroupRule rule = rule_of(grid.scheme);
  for_each_group(layout, [&](std::int64_t row, std::int64_t group) {
    const GroupGrid parts = group_grid(grid, scale, zero, row * layout.groups + group);
    const std::int64_t first = row * layout.columns + group * layout.group;
    for (std::int64_t j = first; j < first + layout.group; ++j) {
      out[j] = rule.value(static_cast<float>(code[j]), parts);
    }
  });
  return values;
}

at::Tensor clamp_to_grid(const at::Tensor& weight, const Grid& grid) {
  const Layout layout = layout_of(weight, grid.scheme);
  check_grid(layout, grid);
  at::Tensor values = weight.clone().contiguous();
  float* data = values.data_ptr<float>();
  const float* scale = grid.scale.const_data_ptr<float>();
  const float* zero = zeros_of(grid);
  const GroupRule rule = rule_of(grid.scheme);
  const bool table = grid.scheme.table();
  const auto bottom = table ? 128.0f + kernels::kTable16[0] : 0.0f;
  const auto top =
      table ? 128.0f + kernels::kTable16[15] : static_cast<float>(grid.scheme.levels() - 1);
  for_each_group(layout, [&](std::int64_t row, std::int64_t group) {
    const GroupGrid parts = group_grid(grid, scale, zero, row * layout.groups + group);
    const float reach = rule.levels ? rule.levels->largest() * parts.scale : 0;
    const float first_value = rule.levels ? -reach : rule.value(bottom, parts);
    const float last_value = rule.levels ? reach : rule.value(top, parts);
    const auto [low, high] = std::minmax(first_value, last_value);
    float* part = data + row * layout.columns + group * layout.group;
    for (std::int64_t j = 0; j < layout.group; ++j) part[j] = std::clamp(part[j], low, high);
  });
  return values;
}

void check_finite(const at::Tensor& values, std::string_view where) {
  const at::Tensor plain = values.contiguous();
  const float* data = plain.const_data_ptr<float>();
  const std::int64_t columns = plain.size(-1);
  for (std::int64_t i = 0; i < plain.numel(); ++i) {
    require<NumericRefusal>(std::isfinite(data[i]), where, "the weight holds ", data[i], " at row ",
                            i / columns, ", column ", i % columns,
                            "; the source is damaged, or an earlier pass overflowed");
  }
}

}  // namespace attar
