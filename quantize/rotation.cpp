#include "quantize/rotation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>

namespace attar {
namespace {

using linalg::RandomRotation;

DenseWeight read_turned(const Weight& weight, const at::Tensor& norm, const RandomRotation& turn) {
  return {turn.columns(dense(weight) * norm)};
}

void write_turned(Linear& linear, const RandomRotation& turn) {
  linear.weight = DenseWeight{turn.rows(dense(linear.weight))};
  if (linear.bias.defined()) linear.bias = turn.columns(linear.bias.unsqueeze(0)).squeeze(0);
}

}  // namespace

Block rotated(Block block, const ModelRotation& rotation) {
  if (rotation.heads) {
    write_turned(block[Role::kValue], *rotation.heads);
    Weight& output = block[Role::kOutput].weight;
    output = DenseWeight{rotation.heads->columns(dense(output))};
  }
  if (rotation.stream) {
    for (const Role role : kRoles) {
      const Site site = site_of(role);
      if (site == Site::kOutputInput || site == Site::kDownInput) {
        write_turned(block[role], *rotation.stream);
      } else {
        block[role].weight =
            read_turned(block[role].weight,
                        site == Site::kAttentionInput ? block.attention_norm : block.mlp_norm,
                        *rotation.stream);
      }
    }
    block.attention_norm = at::ones_like(block.attention_norm);
    block.mlp_norm = at::ones_like(block.mlp_norm);
  }
  return block;
}

OuterWeights rotated(const OuterWeights& outer, const ModelRotation& rotation) {
  if (!rotation.stream) return outer;
  return {DenseWeight{rotation.stream->columns(dense(outer.embedding))},
          at::ones_like(outer.final_norm),
          read_turned(outer.head.value_or(outer.embedding), outer.final_norm, *rotation.stream)};
}

}  // namespace attar
