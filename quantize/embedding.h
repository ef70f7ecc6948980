// Rounding embedding and head: as the matrix that makes logits, by GPTQ on the states that enter
// it.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "compress/linalg/gram.h"
#include "quantize/gptq.h"

namespace attar {

// Statistics of what enters the head, the states behind the final norm, over all tokens.
//   ids  [N, T] int64
linalg::GramStatistics head_statistics(const Model& model, const at::Tensor& ids,
                                       const RunContext& context);

// GPTQ of a matrix of many rows, some thousands at a time. Rows do not depend on one another, so
// the result is gptq_quantize's; loss and rtn_loss are of the whole, fallbacks named once.
//   weight   [V, H] floating, of any kind that dense() takes
//   hessian  [H, H] double
GptqResult gptq_rows(const Weight& weight, const at::Tensor& hessian, const QuantScheme& scheme,
                     const GptqOptions& options, std::string_view where);

}  // namespace attar
