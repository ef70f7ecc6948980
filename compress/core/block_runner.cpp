#include "compress/core/block_runner.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/rotate/rotate.h"

namespace attar {
namespace {

// Biases of layers whose weights are joined; undefined when none has one.
at::Tensor joined_bias(const Block& block, std::initializer_list<Role> roles) {
  bool any = false;
  for (const Role role : roles) any = any || block[role].bias.defined();
  if (!any) return {};
  std::vector<at::Tensor> parts;
  for (const Role role : roles) {
    const Linear& layer = block[role];
    parts.push_back(layer.bias.defined() ? layer.bias.to(at::kFloat)
                                         : at::zeros({shape_of(layer.weight).out}, at::kFloat));
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
  for (const Site site : kSites) prepare(block, site);
}

void BlockRunner::prepare(const Block& block, Site site) {
  const auto join = [&](Joined& joined, std::initializer_list<Role> roles) {
    std::vector<at::Tensor> parts;
    for (const Role role : roles) parts.push_back(dense(block[role].weight));
    joined = {PreparedWeight(parts), joined_bias(block, roles)};
  };
  switch (site) {
    case Site::kAttentionInput:
      return join(qkv_, {Role::kQuery, Role::kKey, Role::kValue});
    case Site::kOutputInput:
      return join(output_, {Role::kOutput});
    case Site::kMlpInput:
      return join(gate_up_, {Role::kGate, Role::kUp});
    case Site::kDownInput:
      return join(down_, {Role::kDown});
  }
}

std::int64_t BlockRunner::prepared_bytes() const {
  return qkv_.weight.bytes() + output_.weight.bytes() + gate_up_.weight.bytes() +
         down_.weight.bytes();
}

at::Tensor BlockRunner::attention_input(const at::Tensor& x) const {
  return rms_norm_into(memory_->take(ForwardMemory::kNormed, x.sizes()), x, attention_norm_,
                       config_.norm_eps);
}

at::Tensor BlockRunner::project(const at::Tensor& normed) const {
  const auto out = memory_->take(ForwardMemory::kProjected,
                                 {normed.size(0), normed.size(1), qkv_.weight.outputs()});
  return qkv_.weight.multiply_into(out, normed, qkv_.bias);
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
  return output_.weight.multiply_into(out, mixed, output_.bias, x.contiguous());
}

at::Tensor BlockRunner::mlp_input(const at::Tensor& h) const {
  return rms_norm_into(memory_->take(ForwardMemory::kMlpNormed, h.sizes()), h, mlp_norm_,
                       config_.norm_eps);
}

at::Tensor BlockRunner::gated(const at::Tensor& normed) const {
  const std::int64_t batch = normed.size(0), length = normed.size(1), ffn = config_.ffn;
  const at::Tensor both = gate_up_.weight.multiply_into(
      memory_->take(ForwardMemory::kGateUp, {batch, length, 2 * ffn}), normed, gate_up_.bias);
  return gated_activation_into(memory_->take(ForwardMemory::kGated, {batch, length, ffn}),
                               both.narrow(-1, 0, ffn), both.narrow(-1, ffn, ffn),
                               config_.activation);
}

at::Tensor BlockRunner::add_mlp(const at::Tensor& h, const at::Tensor& gated) const {
  return down_.weight.multiply_into(at::empty(h.sizes(), h.options()), gated, down_.bias,
                                    h.contiguous());
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
