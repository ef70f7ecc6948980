#include "prune/slicing.h"

#include <ATen/ops/index_select.h>

#include "prune/structured_obs.h"

namespace attar {
namespace {

Weight select(const Weight& weight, std::int64_t dimension, const at::Tensor& index) {
  const auto* plain = std::get_if<DenseWeight>(&weight);
  return DenseWeight{
      at::index_select(plain ? plain->values : dense(weight), dimension, index).contiguous()};
}

void keep_outputs(Linear& linear, const at::Tensor& index) {
  linear.weight = select_rows_of(linear.weight, index);
  if (linear.bias.defined()) linear.bias = at::index_select(linear.bias, 0, index);
}

void keep_inputs(Linear& linear, const at::Tensor& index) {
  linear.weight = select_columns_of(linear.weight, index);
}

}  // namespace

Weight select_rows_of(const Weight& weight, const at::Tensor& index) {
  return select(weight, 0, index);
}

Weight select_columns_of(const Weight& weight, const at::Tensor& index) {
  return select(weight, 1, index);
}

void slice_neurons(Block& block, const std::vector<std::int64_t>& kept) {
  const at::Tensor index = columns_of(kept, 1);
  keep_outputs(block[Role::kGate], index);
  keep_outputs(block[Role::kUp], index);
  keep_inputs(block[Role::kDown], index);
}

void slice_kv_groups(Block& block, const ModelConfig& config,
                     const std::vector<std::int64_t>& kept) {
  const std::int64_t repeats = config.heads / config.kv_heads;
  const at::Tensor shared = columns_of(kept, config.head_dim);
  const at::Tensor queries = columns_of(kept, repeats * config.head_dim);
  keep_outputs(block[Role::kKey], shared);
  keep_outputs(block[Role::kValue], shared);
  keep_outputs(block[Role::kQuery], queries);
  keep_inputs(block[Role::kOutput], queries);
}

void slice_channels(Block& block, const at::Tensor& kept) {
  for (const Norm norm : {Norm::kAttention, Norm::kMlp}) {
    if (block[norm].defined()) block[norm] = at::index_select(block[norm], 0, kept);
  }
  for (const Role role : roles_of(block)) {
    const bool writes = role == Role::kOutput || role == Role::kDown;
    writes ? keep_outputs(block[role], kept) : keep_inputs(block[role], kept);
  }
}

OuterWeights slice_channels(const OuterWeights& outer, const at::Tensor& kept) {
  OuterWeights sliced{
      select_columns_of(outer.embedding, kept), at::index_select(outer.final_norm, 0, kept), {}};
  if (outer.head) sliced.head = select_columns_of(*outer.head, kept);
  return sliced;
}

}  // namespace attar
