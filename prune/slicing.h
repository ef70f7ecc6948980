// Cutting neurons, heads, channels and blocks out of a model: everything that has to go
// together. What stays keeps its values and its type; rounded weights become plain ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/core/model.h"

namespace attar {

// Rows or columns of a weight: `index` [kept] int64. Dense weights keep their type.
Weight select_rows_of(const Weight& weight, const at::Tensor& index);
Weight select_columns_of(const Weight& weight, const at::Tensor& index);

// Neurons of the MLP: rows of gate and up with their biases, columns of down.
void slice_neurons(Block& block, const std::vector<std::int64_t>& kept);

// KV groups: rows of k and v, rows of q and columns of o of the query heads that share them.
//   config  of this block
void slice_kv_groups(Block& block, const ModelConfig& config,
                     const std::vector<std::int64_t>& kept);

// Channels of the residual stream: both norms, columns of q, k, v, gate, up, rows of o and down.
void slice_channels(Block& block, const at::Tensor& kept);

// The same of embedding, final norm and head.
OuterWeights slice_channels(const OuterWeights& outer, const at::Tensor& kept);

}  // namespace attar
