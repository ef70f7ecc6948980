#include "compress/core/forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <numbers>

#include "compress/core/errors.h"
#include "compress/core/gradients.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/round_tokens/round_tokens.h"

namespace attar {

kernels::Activation kernel_activation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return kernels::Activation::silu;
    case Activation::kGeluTanh:
      return kernels::Activation::gelu_tanh;
    case Activation::kGelu:
      return kernels::Activation::gelu_erf;
    case Activation::kRelu:
      return kernels::Activation::relu;
  }
  throw std::logic_error("kernel_activation: unknown activation");
}

namespace {

// Wave lengths stretched as Llama 3.1 does: long ones by `factor`, short ones not, a ramp between.
at::Tensor llama3_frequencies(const at::Tensor& frequencies, const Rope& rope) {
  const auto context = static_cast<double>(rope.original_positions);
  const double longest = context / rope.low_frequency_factor;
  const double shortest = context / rope.high_frequency_factor;
  const at::Tensor wave = 2 * std::numbers::pi / frequencies;
  const at::Tensor stretched = frequencies / rope.factor;
  const at::Tensor share = (context / wave - rope.low_frequency_factor) /
                           (rope.high_frequency_factor - rope.low_frequency_factor);
  const at::Tensor ramp = (1 - share) * stretched + share * frequencies;
  return at::where(wave > longest, stretched, at::where(wave < shortest, frequencies, ramp));
}

}  // namespace

RopeTable rope_table(const ModelConfig& config, std::int64_t positions) {
  const std::int64_t half = config.head_dim / 2;
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) /
                               static_cast<double>(config.head_dim);
  at::Tensor frequencies = 1.0 / at::pow(config.rope.theta, exponents);
  if (config.rope.scaling == RopeScaling::kLinear) frequencies = frequencies / config.rope.factor;
  if (config.rope.scaling == RopeScaling::kLlama3) {
    frequencies = llama3_frequencies(frequencies, config.rope);
  }
  if (!config.rope.stored_factors.empty()) {
    require(static_cast<std::int64_t>(config.rope.stored_factors.size()) == half, "rope",
            "the file holds ", config.rope.stored_factors.size(), " frequency factors, needs ",
            half);
    frequencies = frequencies / at::tensor(config.rope.stored_factors, at::kFloat);
  }
  const at::Tensor angles = at::outer(at::arange(positions, at::kFloat), frequencies);
  return {at::cos(angles), at::sin(angles)};
}

at::Tensor rms_norm_into(at::Tensor out, const at::Tensor& x, const at::Tensor& weight,
                         double eps) {
  const at::Tensor rows = x.contiguous();
  const std::int64_t columns = rows.size(-1);
  kernels::rms_norm({rows.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                     out.mutable_data_ptr<float>(), rows.numel() / columns, columns,
                     static_cast<float>(eps)});
  return out;
}

at::Tensor gated_activation_into(at::Tensor out, const at::Tensor& gate, const at::Tensor& up,
                                 Activation activation) {
  const std::int64_t columns = gate.size(-1);
  kernels::gated_activation({gate.const_data_ptr<float>(), up.const_data_ptr<float>(),
                             out.mutable_data_ptr<float>(), gate.numel() / columns, columns,
                             gate.stride(-2), up.stride(-2), columns,
                             kernel_activation(activation)});
  return out;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (x.requires_grad() || weight.requires_grad()) return rms_norm_with_gradient(x, weight, eps);
  return rms_norm_into(at::empty(x.sizes(), x.options()), x, weight, eps);
}

at::Tensor norm_heads(const at::Tensor& states, const at::Tensor& norm, double eps) {
  if (!norm.defined()) return states;
  return rms_norm(states.unflatten(-1, {-1, norm.size(0)}), norm, eps).flatten(-2);
}

at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  if (gate.requires_grad() || up.requires_grad()) {
    return gated_activation_with_gradient(gate, up, activation);
  }
  return gated_activation_into(at::empty(gate.sizes(), gate.options()), gate, up, activation);
}

at::Tensor round_tokens(const at::Tensor& x, kernels::TokenGrid grid) {
  const at::Tensor rows = x.detach().flatten(0, -2);
  const at::Tensor from = rows.stride(-1) == 1 ? rows : rows.contiguous();
  at::Tensor out = at::empty(from.sizes(), from.options());
  kernels::round_tokens({from.const_data_ptr<float>(), from.stride(0),
                         out.mutable_data_ptr<float>(), from.size(0), from.size(1), grid});
  out = out.view(x.sizes());
  return x.requires_grad() ? x + (out - x.detach()) : out;
}

at::Tensor block_forward(const ModelConfig& model, const Block& block, const RopeTable& rope,
                         const at::Tensor& x, BlockOutputs* outputs) {
  const ModelConfig config = model.with(widths_of(block, model.head_dim));
  at::Tensor query, key, value, h = x;
  if (config.attends()) {
    const at::Tensor normed = rms_norm(x, block[Norm::kAttention], config.norm_eps);
    // Gradients of `normed` are added up against the order of these lines.
    value = block[Role::kValue].forward(normed);
    key = block[Role::kKey].forward(normed);
    query = block[Role::kQuery].forward(normed);
    const at::Tensor mixed =
        attention_with_gradient(norm_heads(query, block[Norm::kQuery], config.norm_eps),
                                norm_heads(key, block[Norm::kKey], config.norm_eps), value, rope,
                                {config.heads, config.kv_heads, config.head_dim});
    h = x + block[Role::kOutput].forward(mixed);
  }
  const at::Tensor mlp = rms_norm(h, block[Norm::kMlp], config.norm_eps);
  const at::Tensor gate = block[Role::kGate].forward(mlp);
  const at::Tensor up = block[Role::kUp].forward(mlp);
  if (outputs != nullptr) *outputs = {query, key, value, h, gate, up};
  const Linear& down = block[Role::kDown];
  const auto* plain = std::get_if<DenseWeight>(&down.weight);
  if (plain != nullptr && gate.requires_grad() && gate.size(-1) > 0) {
    return h + gated_linear_with_gradient(gate, up, config.activation, dense(*plain), down.bias);
  }
  return h + down.forward(gated_activation(gate, up, config.activation));
}

at::Tensor embed(const Weight& embedding, const at::Tensor& ids) {
  const auto rows = ids.flatten();
  std::vector<std::int64_t> shape(ids.sizes().begin(), ids.sizes().end());
  shape.push_back(shape_of(embedding).in);
  if (const auto* plain = std::get_if<DenseWeight>(&embedding)) {
    return at::embedding(plain->values, rows).to(at::kFloat).reshape(shape);
  }
  if (const auto* quantized = std::get_if<QuantizedWeight>(&embedding)) {
    QuantizedWeight picked = *quantized;
    picked.codes = quantized->codes.index_select(0, rows);
    picked.scale = quantized->scale.index_select(0, rows);
    if (picked.zero.defined()) picked.zero = quantized->zero.index_select(0, rows);
    return dense(picked).reshape(shape);
  }
  return dense(embedding).index_select(0, rows).reshape(shape);
}

}  // namespace attar
