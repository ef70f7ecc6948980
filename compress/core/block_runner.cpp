#include "compress/core/block_runner.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/coded_heads/coded_heads.h"
#include "compress/kernels/rotate/rotate.h"

namespace attar {

at::Tensor ForwardMemory::take(Slot slot, at::IntArrayRef shape) {
  const std::int64_t count = c10::multiply_integers(shape);
  at::Tensor& held = slots_[slot];
  if (!held.defined() || held.numel() < count) {
    held = at::Tensor();  // gives the smaller one back first
    held = at::empty({count}, at::kFloat);
  }
  return held.narrow(0, 0, count).view(shape);
}

float* ForwardMemory::floats(Slot slot, std::int64_t count) {
  at::Tensor& held = slots_[slot];
  if (held.defined() && held.numel() >= count) return held.mutable_data_ptr<float>();
  return take(slot, {count}).mutable_data_ptr<float>();
}

BlockRunner::BlockRunner(const ModelConfig& config, const Block& block, const RopeTable& rope,
                         std::shared_ptr<ForwardMemory> memory, Arithmetic arithmetic,
                         CacheType cache_type)
    : config_(config),
      arithmetic_(arithmetic),
      cache_type_(cache_type),
      rope_(rope),
      memory_(std::move(memory)) {
  take(block);
}

void BlockRunner::take(const Block& block) {
  config_ = config_.with(widths_of(block, config_.head_dim));
  for (const Norm norm : kNorms) {
    const at::Tensor& values = block[norm];
    norms_[index_of(norm)] = values.defined() ? values.to(at::kFloat).contiguous() : values;
  }
  for (const Site site : kSites) prepare(block, site);
  const at::Tensor& bias = block[Role::kKey].bias;
  const bool aside =
      cache_type_ != CacheType::kFloat32 && bias.defined() && norm(Norm::kKey) == nullptr;
  key_bias_ = aside ? bias.to(at::kFloat).contiguous() : at::Tensor();
}

const float* BlockRunner::norm(Norm norm) const {
  const at::Tensor& values = norms_[index_of(norm)];
  return values.defined() ? values.const_data_ptr<float>() : nullptr;
}

void BlockRunner::prepare(const Block& block, Site site) {
  const auto part = [&](Role role) {
    return PreparedWeight::Part{&block[role].weight, block[role].bias};
  };
  switch (site) {
    case Site::kAttentionInput:
      if (!config_.attends()) return void(qkv_ = {});
      return qkv_.assign({part(Role::kQuery), part(Role::kKey), part(Role::kValue)}, arithmetic_);
    case Site::kOutputInput:
      if (!config_.attends()) return void(output_ = {});
      return output_.assign({part(Role::kOutput)}, arithmetic_);
    case Site::kMlpInput:
      return gate_up_.assign({part(Role::kGate), part(Role::kUp)}, arithmetic_);
    case Site::kDownInput:
      return down_.assign({part(Role::kDown)}, arithmetic_);
  }
}

std::int64_t BlockRunner::prepared_bytes() const {
  return qkv_.bytes() + output_.bytes() + gate_up_.bytes() + down_.bytes();
}

at::Tensor BlockRunner::attention_input(const at::Tensor& x) const {
  return rms_norm_into(memory_->take(ForwardMemory::kNormed, x.sizes()), x,
                       norms_[index_of(Norm::kAttention)], config_.norm_eps);
}

at::Tensor BlockRunner::project(const at::Tensor& normed) const {
  const auto out =
      memory_->take(ForwardMemory::kProjected, {normed.size(0), normed.size(1), qkv_.outputs()});
  return qkv_.multiply_into(out, normed);
}

// The same straight from x, the norm included.
at::Tensor BlockRunner::norm_and_project(const at::Tensor& x) const {
  if (!qkv_.packed() || qkv_.rounds_tokens() || !x.is_contiguous())
    return project(attention_input(x));
  at::Tensor out = memory_->take(ForwardMemory::kProjected, {x.size(0), x.size(1), qkv_.outputs()});
  kernels::packed_product({x.const_data_ptr<float>(), config_.hidden, x.size(0) * x.size(1),
                           qkv_.layer(), nullptr, out.mutable_data_ptr<float>(), qkv_.outputs(),
                           norm(Norm::kAttention), static_cast<float>(config_.norm_eps)});
  return out;
}

// Norms the heads of q and k of `length` rows of q | k | v, where they have norms, and rotates
// them.
void BlockRunner::turn(float* rows, std::int64_t length, std::int64_t first_position) const {
  const std::int64_t width = config_.q_width() + 2 * config_.kv_width();
  require(first_position + length <= rope_.cos.size(0), "attention", "a sequence of ",
          first_position + length, " tokens exceeds the ", rope_.cos.size(0),
          " positions prepared");
  turn_heads(Norm::kQuery, rows, width, length, config_.heads, first_position);
  turn_heads(Norm::kKey, rows + config_.q_width(), width, length, config_.kv_heads, first_position);
}

void BlockRunner::turn_heads(Norm norm, float* states, std::int64_t stride, std::int64_t length,
                             std::int64_t heads, std::int64_t first_position) const {
  kernels::rotate({.states = states,
                   .token_stride = stride,
                   .tokens = length,
                   .heads = heads,
                   .head_dim = config_.head_dim,
                   .rotary_dim = config_.head_dim,
                   .cosines = rope_.cos.const_data_ptr<float>(),
                   .sines = rope_.sin.const_data_ptr<float>(),
                   .table_positions = rope_.cos.size(0),
                   .first_position = first_position,
                   .norm = this->norm(norm),
                   .norm_eps = static_cast<float>(config_.norm_eps)});
}

void BlockRunner::mix(std::span<const kernels::AttentionSequence> sequences, std::int64_t kv_stride,
                      float* mixed) const {
  const std::int64_t width = config_.q_width() + 2 * config_.kv_width();
  kernels::causal_attention(
      {sequences.data(), static_cast<std::int64_t>(sequences.size()), config_.heads,
       config_.kv_heads, config_.head_dim, width, kv_stride, kv_stride, config_.q_width(),
       static_cast<float>(1.0 / std::sqrt(config_.head_dim)), coded_attention()});
  if (code_bits() == 0) return;
  std::int64_t rows = 0;
  for (const kernels::AttentionSequence& sequence : sequences) rows += sequence.query_count;
  kernels::mix_channels(mixed, {config_.q_width(), rows, config_.heads, config_.head_dim});
}

at::Tensor BlockRunner::attention(const at::Tensor& normed, KeyValues* cache) const {
  return attend(project(normed), cache);
}

at::Tensor BlockRunner::attend(at::Tensor qkv, KeyValues* cache) const {
  const std::int64_t batch = qkv.size(0), length = qkv.size(1);
  const std::int64_t q_width = config_.q_width(), kv_width = config_.kv_width();
  const std::int64_t width = q_width + 2 * kv_width;
  const std::int64_t before = cache ? cache->length : 0;
  require(!cache || (batch == 1 && before + length <= cache->keys.size(0)), "attention",
          "a cache continues one sequence within its capacity");

  auto* base = qkv.mutable_data_ptr<float>();
  for (std::int64_t b = 0; b < batch; ++b) turn(base + b * length * width, length, before);

  at::Tensor mixed = memory_->take(ForwardMemory::kMixed, {batch, length, q_width});
  auto* out = mixed.mutable_data_ptr<float>();
  std::vector<kernels::AttentionSequence> sequences;
  if (code_bits() != 0) {
    KeyValues fresh;
    if (!cache) reserve(fresh, batch * length);
    KeyValues& held = cache ? *cache : fresh;
    auto* keys = held.keys.mutable_data_ptr<std::uint8_t>();
    auto* values = held.values.mutable_data_ptr<std::uint8_t>();
    for (std::int64_t row = 0; row < batch * length; row += length) {
      const std::int64_t at = (before + row) * token_codes(), from = row * token_codes();
      encode(base + row * width, length, before, keys + at, values + at);
      sequences.push_back({base + row * width, nullptr, nullptr, out + row * q_width, length,
                           before + length, keys + from, values + from});
    }
    held.length = before + length;
    mix(sequences, kv_width, out);
    return mixed;
  }
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
  for (std::int64_t row = 0; row < batch * length; row += length) {
    sequences.push_back({base + row * width, keys + row * kv_stride, values + row * kv_stride,
                         out + row * q_width, length, before + length});
  }
  mix(sequences, kv_stride, out);
  return mixed;
}

at::Tensor BlockRunner::mixed(const at::Tensor& x, KeyValues* cache) const {
  if (config_.attends()) return attend(norm_and_project(x), cache);
  if (cache != nullptr) cache->length += x.size(1);
  return {};
}

at::Tensor BlockRunner::attention_branches(const at::Tensor& normed, const KeyValues& prefix,
                                           std::span<const std::int64_t> lengths) const {
  return attend_branches(project(normed), prefix, lengths);
}

at::Tensor BlockRunner::attend_branches(at::Tensor qkv, const KeyValues& prefix,
                                        std::span<const std::int64_t> lengths) const {
  const std::int64_t q_width = config_.q_width(), kv_width = config_.kv_width();
  const std::int64_t width = q_width + 2 * kv_width, before = prefix.length;
  at::Tensor mixed = memory_->take(ForwardMemory::kMixed, {1, qkv.size(1), q_width});
  auto* base = qkv.mutable_data_ptr<float>();

  std::vector<at::Tensor> kept;  // keys and values of each branch, prefix first
  std::vector<kernels::AttentionSequence> sequences;
  std::int64_t row = 0;
  for (const std::int64_t length : lengths) {
    turn(base + row * width, length, before);
    kernels::AttentionSequence sequence{base + row * width,
                                        nullptr,
                                        nullptr,
                                        mixed.mutable_data_ptr<float>() + row * q_width,
                                        length,
                                        before + length};
    const auto behind_prefix = [&](const at::Tensor& cached, const at::Tensor& rows) {
      return kept.emplace_back(at::cat({cached.narrow(0, 0, before), rows}, 0));
    };
    if (code_bits() != 0) {
      KeyValues own;
      reserve(own, length);
      encode(base + row * width, length, before, own.keys.mutable_data_ptr<std::uint8_t>(),
             own.values.mutable_data_ptr<std::uint8_t>());
      sequence.k_codes =
          behind_prefix(prefix.keys, own.keys.narrow(0, 0, length)).const_data_ptr<std::uint8_t>();
      sequence.v_codes = behind_prefix(prefix.values, own.values.narrow(0, 0, length))
                             .const_data_ptr<std::uint8_t>();
    } else {
      const at::Tensor rows = qkv.select(0, 0).narrow(0, row, length);
      sequence.k =
          behind_prefix(prefix.keys, rows.narrow(1, q_width, kv_width)).const_data_ptr<float>();
      sequence.v = behind_prefix(prefix.values, rows.narrow(1, q_width + kv_width, kv_width))
                       .const_data_ptr<float>();
    }
    sequences.push_back(sequence);
    row += length;
  }
  mix(sequences, kv_width, mixed.mutable_data_ptr<float>());
  return mixed;
}

at::Tensor BlockRunner::add_attention(const at::Tensor& x, const at::Tensor& mixed) const {
  const auto out = memory_->take(ForwardMemory::kHidden, x.sizes());
  return output_.multiply_into(out, mixed, x.contiguous());
}

at::Tensor BlockRunner::attended(const at::Tensor& x) const {
  return config_.attends() ? add_attention(x, mixed(x, nullptr)) : x;
}

at::Tensor BlockRunner::mlp_input(const at::Tensor& h) const {
  return rms_norm_into(memory_->take(ForwardMemory::kMlpNormed, h.sizes()), h,
                       norms_[index_of(Norm::kMlp)], config_.norm_eps);
}

at::Tensor BlockRunner::gated(const at::Tensor& normed) const {
  const std::int64_t batch = normed.size(0), length = normed.size(1), ffn = config_.ffn;
  const at::Tensor both = gate_up_.multiply_into(
      memory_->take(ForwardMemory::kGateUp, {batch, length, 2 * ffn}), normed);
  return gated_activation_into(memory_->take(ForwardMemory::kGated, {batch, length, ffn}),
                               both.narrow(-1, 0, ffn), both.narrow(-1, ffn, ffn),
                               config_.activation);
}

at::Tensor BlockRunner::add_mlp(const at::Tensor& h, const at::Tensor& gated) const {
  return down_.multiply_into(at::empty(h.sizes(), h.options()), gated, h.contiguous());
}

// Whether the rest of a block runs for a few rows at a time; with fewer rows than threads can share
// that way, each product is shared out by itself.
bool BlockRunner::finishes_in_one(const at::Tensor& x) const {
  constexpr std::int64_t kPanel = 32;
  if (!config_.attends()) return false;
  const bool packed = output_.packed() && gate_up_.packed() && down_.packed();
  const bool rounds = output_.rounds_tokens() || gate_up_.rounds_tokens() || down_.rounds_tokens();
  return packed && !rounds && x.is_contiguous() && down_.inputs() % kPanel == 0 &&
         x.size(0) * x.size(1) >= kPanel * threads();
}

void BlockRunner::finish_into(at::Tensor out, const at::Tensor& x, const at::Tensor& mixed) const {
  if (!finishes_in_one(x) || !out.is_contiguous()) {
    const at::Tensor h = mixed.defined() ? add_attention(x, mixed) : x.contiguous();
    down_.multiply_into(out, gated(mlp_input(h)), h);
    return;
  }
  kernels::packed_finish(
      {x.const_data_ptr<float>(), mixed.const_data_ptr<float>(), x.size(0) * x.size(1),
       output_.layer(), norm(Norm::kMlp), static_cast<float>(config_.norm_eps), gate_up_.layer(),
       kernel_activation(config_.activation), down_.layer(), out.mutable_data_ptr<float>()});
}

at::Tensor BlockRunner::forward(const at::Tensor& x, KeyValues* cache) const {
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (steps_alone(x, cache)) {
    step(x.const_data_ptr<float>(), *cache, out.mutable_data_ptr<float>());
    return out;
  }
  finish_into(out, x, mixed(x, cache));
  return out;
}

void BlockRunner::advance(at::Tensor x) const { finish_into(x, x, mixed(x, nullptr)); }

at::Tensor BlockRunner::forward_branches(const at::Tensor& x, const KeyValues& prefix,
                                         std::span<const std::int64_t> lengths) const {
  at::Tensor out = at::empty(x.sizes(), x.options());
  finish_into(
      out, x,
      config_.attends() ? attend_branches(norm_and_project(x), prefix, lengths) : at::Tensor());
  return out;
}

}  // namespace attar
