#include "compress/core/forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "compress/core/errors.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/rotate/rotate.h"

namespace attar {
namespace {

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

// [B, T, heads, head_dim] rotated, differentiable; positions start at 0.
at::Tensor rotate(const at::Tensor& x, const RopeTable& rope) {
  const std::int64_t length = x.size(1), half = x.size(3) / 2;
  const at::Tensor cos = rope.cos.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor sin = rope.sin.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor low = x.narrow(3, 0, half), high = x.narrow(3, half, half);
  return at::cat({low * cos - high * sin, high * cos + low * sin}, 3);
}

at::Tensor differentiable_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + eps) * weight;
}

at::Tensor differentiable_activation(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return x * x.sigmoid();
    case Activation::kGeluTanh: {
      const double c = std::sqrt(2.0 / std::numbers::pi);
      return 0.5 * x * (1 + (c * (x + 0.044715 * x.pow(3))).tanh());
    }
    case Activation::kGelu:
      return 0.5 * x * (1 + (x / std::numbers::sqrt2).erf());
    case Activation::kRelu:
      return x.clamp_min(0);
  }
  throw std::logic_error("differentiable_activation: unknown activation");
}

at::Tensor norm_into(at::Tensor out, const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor rows = x.contiguous();
  const std::int64_t columns = rows.size(-1);
  kernels::rms_norm({rows.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                     out.mutable_data_ptr<float>(), rows.numel() / columns, columns,
                     static_cast<float>(eps)});
  return out;
}

// `gate` and `up` may be halves of wider rows.
at::Tensor gate_into(at::Tensor out, const at::Tensor& gate, const at::Tensor& up,
                     Activation activation) {
  const std::int64_t columns = gate.size(-1);
  kernels::gated_activation({gate.const_data_ptr<float>(), up.const_data_ptr<float>(),
                             out.mutable_data_ptr<float>(), gate.numel() / columns, columns,
                             gate.stride(-2), up.stride(-2), columns,
                             kernel_activation(activation)});
  return out;
}

// out = x W^T + bias, rows of x [..., I] in one product.
at::Tensor multiply_into(at::Tensor out, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias) {
  at::Tensor flat = out.flatten(0, -2);
  const at::Tensor rows = x.flatten(0, -2);
  if (bias.defined()) {
    at::addmm_out(flat, bias, rows, weight.t());
  } else {
    at::mm_out(flat, rows, weight.t());
  }
  return out;
}

at::Tensor joined(std::initializer_list<at::Tensor> parts) {
  return at::cat(std::vector<at::Tensor>(parts), 0).contiguous();
}

// Biases of layers whose weights are joined; undefined when none has one.
at::Tensor joined_bias(std::initializer_list<const Linear*> layers) {
  bool any = false;
  for (const Linear* layer : layers) any = any || layer->bias.defined();
  if (!any) return {};
  std::vector<at::Tensor> parts;
  for (const Linear* layer : layers) {
    parts.push_back(layer->bias.defined() ? layer->bias
                                          : at::zeros({shape_of(layer->weight).out}, at::kFloat));
  }
  return at::cat(parts, 0);
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

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (x.requires_grad() || weight.requires_grad()) return differentiable_norm(x, weight, eps);
  return norm_into(at::empty(x.sizes(), x.options()), x, weight, eps);
}

at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  if (gate.requires_grad() || up.requires_grad()) {
    return differentiable_activation(gate, activation) * up;
  }
  return gate_into(at::empty(gate.sizes(), gate.options()), gate, up, activation);
}

at::Tensor ForwardMemory::take(Slot slot, at::IntArrayRef shape) {
  const std::int64_t count = c10::multiply_integers(shape);
  at::Tensor& held = slots_[slot];
  if (!held.defined() || held.numel() < count) {
    held = at::Tensor();  // gives the smaller one back first
    held = at::empty({count}, at::kFloat);
  }
  return held.narrow(0, 0, count).view(shape);
}

BlockRunner::BlockRunner(const ModelConfig& config, const Block& block, const RopeTable& rope,
                         std::shared_ptr<ForwardMemory> memory)
    : config_(config),
      rope_(rope),
      memory_(std::move(memory)),
      attention_norm_(block.attention_norm.to(at::kFloat).contiguous()),
      mlp_norm_(block.mlp_norm.to(at::kFloat).contiguous()) {
  const auto values = [&](Role role) { return dense(block[role].weight); };
  qkv_ = joined({values(Role::kQuery), values(Role::kKey), values(Role::kValue)});
  output_ = values(Role::kOutput).contiguous();
  gate_up_ = joined({values(Role::kGate), values(Role::kUp)});
  down_ = values(Role::kDown).contiguous();
  qkv_bias_ = joined_bias({&block[Role::kQuery], &block[Role::kKey], &block[Role::kValue]});
  output_bias_ = block[Role::kOutput].bias;
  gate_up_bias_ = joined_bias({&block[Role::kGate], &block[Role::kUp]});
  down_bias_ = block[Role::kDown].bias;
}

void BlockRunner::refresh(const Block& block, Role role) {
  const at::Tensor values = dense(block[role].weight);
  const std::int64_t q = config_.q_width(), kv = config_.kv_width();
  switch (role) {
    case Role::kQuery:
      qkv_.narrow(0, 0, q).copy_(values);
      return;
    case Role::kKey:
      qkv_.narrow(0, q, kv).copy_(values);
      return;
    case Role::kValue:
      qkv_.narrow(0, q + kv, kv).copy_(values);
      return;
    case Role::kOutput:
      output_ = values.contiguous();
      return;
    case Role::kGate:
      gate_up_.narrow(0, 0, config_.ffn).copy_(values);
      return;
    case Role::kUp:
      gate_up_.narrow(0, config_.ffn, config_.ffn).copy_(values);
      return;
    case Role::kDown:
      down_ = values.contiguous();
      return;
  }
}

std::int64_t BlockRunner::prepared_bytes() const {
  return 4 * (qkv_.numel() + output_.numel() + gate_up_.numel() + down_.numel());
}

at::Tensor BlockRunner::attention_input(const at::Tensor& x) const {
  return norm_into(memory_->take(ForwardMemory::kNormed, x.sizes()), x, attention_norm_,
                   config_.norm_eps);
}

at::Tensor BlockRunner::project(const at::Tensor& normed) const {
  const auto out =
      memory_->take(ForwardMemory::kProjected, {normed.size(0), normed.size(1), qkv_.size(0)});
  return multiply_into(out, normed, qkv_, qkv_bias_);
}

// Rotates q and k of `length` rows of q | k | v in place.
void BlockRunner::turn(float* rows, std::int64_t length, std::int64_t first_position) const {
  const std::int64_t width = config_.q_width() + 2 * config_.kv_width();
  require(first_position + length <= rope_.cos.size(0), "attention", "a sequence of ",
          first_position + length, " tokens exceeds the ", rope_.cos.size(0),
          " positions prepared");
  const auto turn_heads = [&](float* states, std::int64_t heads) {
    kernels::rotate({states, width, length, heads, config_.head_dim, config_.head_dim,
                     rope_.cos.const_data_ptr<float>(), rope_.sin.const_data_ptr<float>(),
                     rope_.cos.size(0), first_position});
  };
  turn_heads(rows, config_.heads);
  turn_heads(rows + config_.q_width(), config_.kv_heads);
}

void BlockRunner::mix(std::span<const kernels::AttentionSequence> sequences,
                      std::int64_t kv_stride) const {
  const std::int64_t width = config_.q_width() + 2 * config_.kv_width();
  kernels::causal_attention({sequences.data(), static_cast<std::int64_t>(sequences.size()),
                             config_.heads, config_.kv_heads, config_.head_dim, width, kv_stride,
                             kv_stride, config_.q_width(),
                             static_cast<float>(1.0 / std::sqrt(config_.head_dim))});
}

at::Tensor BlockRunner::attention(const at::Tensor& normed, KeyValues* cache) const {
  const std::int64_t batch = normed.size(0), length = normed.size(1);
  const std::int64_t q_width = config_.q_width(), kv_width = config_.kv_width();
  const std::int64_t width = q_width + 2 * kv_width;
  const std::int64_t before = cache ? cache->length : 0;
  require(!cache || (batch == 1 && before + length <= cache->keys.size(0)), "attention",
          "a cache continues one sequence within its capacity");

  at::Tensor qkv = project(normed);
  auto* base = qkv.mutable_data_ptr<float>();
  for (std::int64_t b = 0; b < batch; ++b) turn(base + b * length * width, length, before);

  const float* keys = base + q_width;
  const float* values = keys + kv_width;
  std::int64_t kv_stride = width;
  if (cache) {
    const at::Tensor rows = qkv.select(0, 0);
    cache->keys.narrow(0, before, length).copy_(rows.narrow(1, q_width, kv_width));
    cache->values.narrow(0, before, length).copy_(rows.narrow(1, q_width + kv_width, kv_width));
    cache->length = before + length;
    keys = cache->keys.const_data_ptr<float>();
    values = cache->values.const_data_ptr<float>();
    kv_stride = kv_width;
  }
  at::Tensor mixed = memory_->take(ForwardMemory::kMixed, {batch, length, q_width});
  std::vector<kernels::AttentionSequence> sequences;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t row = b * length;
    sequences.push_back({base + row * width, keys + row * kv_stride, values + row * kv_stride,
                         mixed.mutable_data_ptr<float>() + row * q_width, length, before + length});
  }
  mix(sequences, kv_stride);
  return mixed;
}

at::Tensor BlockRunner::attention_branches(const at::Tensor& normed, const KeyValues& prefix,
                                           std::span<const std::int64_t> lengths) const {
  const std::int64_t q_width = config_.q_width(), kv_width = config_.kv_width();
  const std::int64_t width = q_width + 2 * kv_width, before = prefix.length;
  at::Tensor qkv = project(normed);
  at::Tensor mixed = memory_->take(ForwardMemory::kMixed, {1, normed.size(1), q_width});
  auto* base = qkv.mutable_data_ptr<float>();

  std::vector<at::Tensor> kept;  // keys and values of each branch, prefix first
  std::vector<kernels::AttentionSequence> sequences;
  std::int64_t row = 0;
  for (const std::int64_t length : lengths) {
    turn(base + row * width, length, before);
    const at::Tensor rows = qkv.select(0, 0).narrow(0, row, length);
    const auto whole = [&](const at::Tensor& cached, std::int64_t column) {
      return kept.emplace_back(
          at::cat({cached.narrow(0, 0, before), rows.narrow(1, column, kv_width)}, 0));
    };
    const at::Tensor keys = whole(prefix.keys, q_width);
    const at::Tensor values = whole(prefix.values, q_width + kv_width);
    sequences.push_back({base + row * width, keys.const_data_ptr<float>(),
                         values.const_data_ptr<float>(),
                         mixed.mutable_data_ptr<float>() + row * q_width, length, before + length});
    row += length;
  }
  mix(sequences, kv_width);
  return mixed;
}

at::Tensor BlockRunner::add_attention(const at::Tensor& x, const at::Tensor& mixed) const {
  const auto out = memory_->take(ForwardMemory::kHidden, x.sizes());
  return multiply_into(out, mixed, output_, output_bias_).add_(x);
}

at::Tensor BlockRunner::mlp_input(const at::Tensor& h) const {
  return norm_into(memory_->take(ForwardMemory::kMlpNormed, h.sizes()), h, mlp_norm_,
                   config_.norm_eps);
}

at::Tensor BlockRunner::gated(const at::Tensor& normed) const {
  const std::int64_t batch = normed.size(0), length = normed.size(1), ffn = config_.ffn;
  const at::Tensor both =
      multiply_into(memory_->take(ForwardMemory::kGateUp, {batch, length, 2 * ffn}), normed,
                    gate_up_, gate_up_bias_);
  return gate_into(memory_->take(ForwardMemory::kGated, {batch, length, ffn}),
                   both.narrow(-1, 0, ffn), both.narrow(-1, ffn, ffn), config_.activation);
}

at::Tensor BlockRunner::add_mlp(const at::Tensor& h, const at::Tensor& gated) const {
  return multiply_into(at::empty(h.sizes(), h.options()), gated, down_, down_bias_).add_(h);
}

at::Tensor BlockRunner::finish(const at::Tensor& x, const at::Tensor& mixed) const {
  const at::Tensor h = add_attention(x, mixed);
  return add_mlp(h, gated(mlp_input(h)));
}

at::Tensor BlockRunner::forward(const at::Tensor& x, KeyValues* cache) const {
  return finish(x, attention(attention_input(x), cache));
}

at::Tensor BlockRunner::forward_branches(const at::Tensor& x, const KeyValues& prefix,
                                         std::span<const std::int64_t> lengths) const {
  return finish(x, attention_branches(attention_input(x), prefix, lengths));
}

at::Tensor block_forward(const ModelConfig& config, const Block& block, const RopeTable& rope,
                         const at::Tensor& x) {
  const std::int64_t batch = x.size(0), length = x.size(1);
  const auto heads = [&](const at::Tensor& y, std::int64_t count) {
    return y.reshape({batch, length, count, config.head_dim});
  };
  const auto repeated = [&](const at::Tensor& y) {  // [B, heads, T, head_dim]
    return y.repeat_interleave(config.heads / config.kv_heads, 2).transpose(1, 2);
  };
  const at::Tensor normed = rms_norm(x, block.attention_norm, config.norm_eps);
  const at::Tensor q = rotate(heads(block[Role::kQuery].forward(normed), config.heads), rope);
  const at::Tensor k = rotate(heads(block[Role::kKey].forward(normed), config.kv_heads), rope);
  const at::Tensor v = heads(block[Role::kValue].forward(normed), config.kv_heads);
  const at::Tensor scores = q.transpose(1, 2).matmul(repeated(k).transpose(2, 3)) /
                            std::sqrt(static_cast<double>(config.head_dim));
  const at::Tensor hidden =
      at::ones({length, length}, at::kBool).triu(1);  // true: the key comes later
  const at::Tensor weights =
      scores.masked_fill(hidden, -std::numeric_limits<float>::infinity()).softmax(-1);
  const at::Tensor mixed =
      weights.matmul(repeated(v)).transpose(1, 2).reshape({batch, length, config.q_width()});
  const at::Tensor h = x + block[Role::kOutput].forward(mixed);
  const at::Tensor mlp = rms_norm(h, block.mlp_norm, config.norm_eps);
  const at::Tensor gate = block[Role::kGate].forward(mlp);
  const at::Tensor up = block[Role::kUp].forward(mlp);
  return h + block[Role::kDown].forward(gated_activation(gate, up, config.activation));
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
