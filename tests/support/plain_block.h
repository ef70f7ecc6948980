// What a block computes, in plain operations of LibTorch and in the type of its input: a slow
// reference, for float64 too, that shares nothing with compress/core/forward.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "compress/core/forward.h"

namespace attar::testing {

inline at::Tensor plain_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + eps) * weight;
}

inline at::Tensor plain_activation(const at::Tensor& x, Activation activation) {
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
  throw std::logic_error("plain_activation: unknown activation");
}

// The tensors of a block in the type that is to be computed in; biases may be undefined.
struct PlainBlock {
  std::array<at::Tensor, kNorms.size()> norms;
  std::array<at::Tensor, kRoles.size()> weights, biases;
};

inline PlainBlock plain_block(const Block& block, at::ScalarType type) {
  PlainBlock plain;
  for (const Norm norm : kNorms) {
    if (block[norm].defined()) plain.norms[index_of(norm)] = block[norm].detach().to(type);
  }
  for (const Role role : roles_of(block)) {
    plain.weights[index_of(role)] = dense(block[role].weight).detach().to(type);
    if (block[role].bias.defined())
      plain.biases[index_of(role)] = block[role].bias.detach().to(type);
  }
  return plain;
}

// x [B, T, hidden] -> [B, T, hidden].
inline at::Tensor plain_forward(const ModelConfig& config, const PlainBlock& block,
                                const RopeTable& rope, const at::Tensor& x) {
  const std::int64_t batch = x.size(0), length = x.size(1);
  const auto apply = [&](Role role, const at::Tensor& input) {
    return at::linear(input, block.weights[index_of(role)], block.biases[index_of(role)]);
  };
  const auto heads = [&](const at::Tensor& y, std::int64_t count) {
    return y.reshape({batch, length, count, config.head_dim});
  };
  const auto rotate = [&](const at::Tensor& y) {
    const std::int64_t half = config.head_dim / 2;
    const at::Tensor cos = rope.cos.narrow(0, 0, length).unsqueeze(1).to(y.scalar_type());
    const at::Tensor sin = rope.sin.narrow(0, 0, length).unsqueeze(1).to(y.scalar_type());
    const at::Tensor low = y.narrow(3, 0, half), high = y.narrow(3, half, half);
    return at::cat({low * cos - high * sin, high * cos + low * sin}, 3);
  };
  const auto repeated = [&](const at::Tensor& y) {  // [B, heads, T, head_dim]
    return y.repeat_interleave(config.heads / config.kv_heads, 2).transpose(1, 2);
  };
  const auto norm = [&](Norm which, const at::Tensor& y) {
    const at::Tensor& weight = block.norms[index_of(which)];
    return weight.defined() ? plain_norm(y, weight, config.norm_eps) : y;
  };
  const auto finish = [&](const at::Tensor& h) {
    const at::Tensor mlp = norm(Norm::kMlp, h);
    return h + apply(Role::kDown, plain_activation(apply(Role::kGate, mlp), config.activation) *
                                      apply(Role::kUp, mlp));
  };
  if (!block.norms[index_of(Norm::kAttention)].defined()) return finish(x);
  const at::Tensor normed = norm(Norm::kAttention, x);
  const at::Tensor q = rotate(norm(Norm::kQuery, heads(apply(Role::kQuery, normed), config.heads)));
  const at::Tensor k = rotate(norm(Norm::kKey, heads(apply(Role::kKey, normed), config.kv_heads)));
  const at::Tensor v = heads(apply(Role::kValue, normed), config.kv_heads);
  const at::Tensor scores = q.transpose(1, 2).matmul(repeated(k).transpose(2, 3)) /
                            std::sqrt(static_cast<double>(config.head_dim));
  const at::Tensor later = at::ones({length, length}, at::kBool).triu(1);
  const at::Tensor weights =
      scores.masked_fill(later, -std::numeric_limits<float>::infinity()).softmax(-1);
  const at::Tensor mixed =
      weights.matmul(repeated(v)).transpose(1, 2).reshape({batch, length, config.q_width()});
  return finish(x + apply(Role::kOutput, mixed));
}

}  // namespace attar::testing
