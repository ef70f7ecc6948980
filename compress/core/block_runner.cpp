#include "compress/core/block_runner.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/rotate/rotate.h"

namespace attar {
namespace {

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
  return rms_norm_into(memory_->take(ForwardMemory::kNormed, x.sizes()), x, attention_norm_,
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
  return rms_norm_into(memory_->take(ForwardMemory::kMlpNormed, h.sizes()), h, mlp_norm_,
                       config_.norm_eps);
}

at::Tensor BlockRunner::gated(const at::Tensor& normed) const {
  const std::int64_t batch = normed.size(0), length = normed.size(1), ffn = config_.ffn;
  const at::Tensor both =
      multiply_into(memory_->take(ForwardMemory::kGateUp, {batch, length, 2 * ffn}), normed,
                    gate_up_, gate_up_bias_);
  return gated_activation_into(memory_->take(ForwardMemory::kGated, {batch, length, ffn}),
                               both.narrow(-1, 0, ffn), both.narrow(-1, ffn, ffn),
                               config_.activation);
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

}  // namespace attar
