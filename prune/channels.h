// Which channels of the residual stream matter (Minitron, Muralidharan et al. 2024,
// arXiv:2407.14679), and by how much the norms change when the others go.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/core/model.h"
#include "compress/core/pass.h"

namespace attar {

// Importance of every channel, [hidden] double: |output| of a norm averaged over the tokens of a
// sequence, the root of the sum of squares over sequences, summed over all norms.
//   ids  [N, T] int64: calibration tokens
at::Tensor channel_scores(const Model& model, const at::Tensor& ids, const RunContext& context);

// How many times smaller a norm's root mean square becomes when only `kept` channels enter it,
// averaged over tokens: in the order attention norm and MLP norm of each block, then the final
// norm. A norm's weight times this gives on average what it gave before.
std::vector<double> norm_ratios(const Model& model, const at::Tensor& ids, const at::Tensor& kept,
                                const RunContext& context);

// The `count` highest scores, ascending by index; of equal scores the lowest index stays.
std::vector<std::int64_t> highest(const at::Tensor& scores, std::int64_t count);

}  // namespace attar
