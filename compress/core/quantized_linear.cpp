#include "compress/core/quantized_linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "compress/core/errors.h"
#include "compress/core/gradients.h"

namespace attar {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct GroupSums {
  double codes = 0;  // of weight * code
  double plain = 0;  // of weight
};

// Eight partial sums, added up in one order.
GroupSums sums_of(const float* weight, const std::uint8_t* codes, std::int64_t count) {
  double by_code[8] = {}, plain[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      const auto w = static_cast<double>(weight[i + lane]);
      by_code[lane] += w * static_cast<double>(codes[i + lane]);
      plain[lane] += w;
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) {
    const auto w = static_cast<double>(weight[i]);
    by_code[lane] += w * static_cast<double>(codes[i]);
    plain[lane] += w;
  }
  GroupSums sums;
  for (int lane = 0; lane < 8; ++lane) sums.codes += by_code[lane], sums.plain += plain[lane];
  return sums;
}

// Of [n, C], row after row in float64.
at::Tensor sum_of_columns(const at::Tensor& rows) {
  const std::int64_t count = rows.size(0), columns = rows.size(1);
  std::vector<double> sums(static_cast<std::size_t>(columns));
  const float* from = rows.const_data_ptr<float>();
  for (std::int64_t i = 0; i < count * columns; ++i) {
    sums[static_cast<std::size_t>(i % columns)] += static_cast<double>(from[i]);
  }
  at::Tensor total = at::empty({columns}, at::kFloat);
  std::copy(sums.begin(), sums.end(), total.mutable_data_ptr<float>());
  return total;
}

class QuantizedLinearFunction : public Function<QuantizedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& scale,
                            const std::optional<at::Tensor>& zero,
                            const std::optional<at::Tensor>& bias, const at::Tensor& codes,
                            const QuantScheme& scheme) {
    const at::Tensor rows = x.contiguous();
    context->save_for_backward({rows, scale, zero ? *zero : at::Tensor(), codes});
    context->saved_data["bits"] = scheme.bits;
    context->saved_data["group_size"] = scheme.group_size;
    context->saved_data["zero_point"] = static_cast<std::int64_t>(scheme.zero_point);
    context->saved_data["block"] = static_cast<std::int64_t>(scheme.block);
    context->saved_data["bias"] = bias.has_value();
    const QuantizedWeight weight{scheme, codes, scale, zero ? *zero : at::Tensor()};
    return linear_with_gradient(rows, dense(Weight(weight)), bias ? *bias : at::Tensor());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::NoGradGuard none;
    const variable_list saved = context->get_saved_variables();
    QuantScheme scheme;
    scheme.bits = static_cast<int>(context->saved_data["bits"].toInt());
    scheme.group_size = context->saved_data["group_size"].toInt();
    scheme.zero_point = static_cast<ZeroPoint>(context->saved_data["zero_point"].toInt());
    scheme.block = static_cast<BlockGrid>(context->saved_data["block"].toInt());
    const QuantizedWeight weight{scheme, saved[3], saved[1], saved[2]};
    const at::Tensor& x = saved[0];
    const at::Tensor back = gradients[0].contiguous().flatten(0, -2);
    variable_list found(6);
    if (context->needs_input_grad(0)) {
      const at::Tensor values = dense(Weight(weight)).t().contiguous();
      found[0] = linear_with_gradient(back, values, {}).view(x.sizes());
    }
    const bool scales = context->needs_input_grad(1);
    const bool minima = scheme.zero_point == ZeroPoint::kMinimum && context->needs_input_grad(2);
    if (scales || minima) {
      const GridGradient grid = grid_gradient(
          linear_with_gradient(back.t().contiguous(), x.flatten(0, -2).t().contiguous(), {}),
          weight);
      if (scales) found[1] = grid.scale;
      if (minima) found[2] = grid.minimum;
    }
    if (context->saved_data["bias"].toBool()) found[3] = sum_of_columns(back);
    return found;
  }
};

}  // namespace

GridGradient grid_gradient(const at::Tensor& weight, const QuantizedWeight& quantized) {
  const std::int64_t rows = quantized.codes.size(0), columns = quantized.codes.size(1);
  const std::int64_t groups = quantized.scale.size(1), width = columns / groups;
  require(weight.dim() == 2 && weight.size(0) == rows && weight.size(1) == columns &&
              weight.scalar_type() == at::kFloat,
          "grid_gradient", "the gradient must be float32 [", rows, ", ", columns, "], got ",
          weight.sizes());
  require(!quantized.scheme.floating(), "grid_gradient", "scales of ",
          to_string(quantized.scheme.block), " do not learn");
  const ZeroPoint kind = quantized.scheme.zero_point;
  const at::Tensor from = weight.contiguous(), codes = quantized.codes.contiguous();
  const at::Tensor zero = kind == ZeroPoint::kInteger ? quantized.zero.contiguous() : at::Tensor();
  GridGradient result{at::empty({rows, groups}, at::kFloat), {}};
  if (kind == ZeroPoint::kMinimum) result.minimum = at::empty({rows, groups}, at::kFloat);
  const float* w = from.const_data_ptr<float>();
  const std::uint8_t* code = codes.const_data_ptr<std::uint8_t>();
  const float* zeros = zero.defined() ? zero.const_data_ptr<float>() : nullptr;
  float* scale = result.scale.mutable_data_ptr<float>();
  float* minimum = result.minimum.defined() ? result.minimum.mutable_data_ptr<float>() : nullptr;
  const double middle = kind == ZeroPoint::kSymmetric ? quantized.scheme.levels() / 2 : 0;
  at::parallel_for(0, rows, 1 + (1 << 14) / columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin * groups; g < end * groups; ++g) {
      const GroupSums sums = sums_of(w + g * width, code + g * width, width);
      const double offset = zeros != nullptr ? static_cast<double>(zeros[g]) : middle;
      scale[g] = static_cast<float>(sums.codes - offset * sums.plain);
      if (minimum != nullptr) minimum[g] = static_cast<float>(sums.plain);
    }
  });
  return result;
}

at::Tensor quantized_linear_with_gradient(const at::Tensor& x, const QuantizedWeight& weight,
                                          const at::Tensor& bias) {
  const auto maybe = [](const at::Tensor& t) {
    return t.defined() ? std::optional(t) : std::nullopt;
  };
  return QuantizedLinearFunction::apply(x, weight.scale, maybe(weight.zero), maybe(bias),
                                        weight.codes, weight.scheme);
}

}  // namespace attar
