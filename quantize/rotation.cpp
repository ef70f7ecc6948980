#include "quantize/rotation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>

#include <algorithm>

#include "compress/core/forward.h"

namespace attar {
namespace {

using linalg::RandomRotation;

// Columns times `norm` (undefined: 1) and turned, some rows at a time.
DenseWeight read_turned(const Weight& weight, const at::Tensor& norm, const RandomRotation& turn) {
  constexpr std::int64_t kRows = 4096;
  const auto [count, columns] = shape_of(weight);
  at::Tensor turned = at::empty({count, columns}, at::kFloat);
  for (std::int64_t row = 0; row < count; row += kRows) {
    const at::Tensor ids = at::arange(row, std::min(row + kRows, count), at::kLong);
    const at::Tensor values = embed(weight, ids);
    turned.narrow(0, row, ids.size(0)).copy_(turn.columns(norm.defined() ? values * norm : values));
  }
  return {turned};
}

void write_turned(Linear& linear, const RandomRotation& turn) {
  linear.weight = DenseWeight{turn.rows(dense(linear.weight))};
  if (linear.bias.defined()) linear.bias = turn.columns(linear.bias.unsqueeze(0)).squeeze(0);
}

}  // namespace

Block rotated(Block block, const ModelRotation& rotation) {
  if (rotation.heads && attends(block)) {
    write_turned(block[Role::kValue], *rotation.heads);
    Weight& output = block[Role::kOutput].weight;
    output = read_turned(output, {}, *rotation.heads);
  }
  if (rotation.stream) {
    for (const Role role : roles_of(block)) {
      const Site site = site_of(role);
      if (site == Site::kOutputInput || site == Site::kDownInput) {
        write_turned(block[role], *rotation.stream);
      } else {
        block[role].weight =
            read_turned(block[role].weight,
                        site == Site::kAttentionInput ? block[Norm::kAttention] : block[Norm::kMlp],
                        *rotation.stream);
      }
    }
    for (const Norm norm : {Norm::kAttention, Norm::kMlp}) {
      if (block[norm].defined()) block[norm] = at::ones_like(block[norm]);
    }
  }
  return block;
}

OuterWeights rotated(const OuterWeights& outer, const ModelRotation& rotation) {
  if (!rotation.stream) return outer;
  return {read_turned(outer.embedding, {}, *rotation.stream), at::ones_like(outer.final_norm),
          read_turned(outer.head.value_or(outer.embedding), outer.final_norm, *rotation.stream)};
}

}  // namespace attar
