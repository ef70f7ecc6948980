// Rows of weights, so that no export and no reading needs a whole dense matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/weight.h"

namespace attar {

// Rows [begin, end) of dense(weight), float32. Low-rank and sparse parts cost their whole matrix.
at::Tensor dense_rows(const Weight& weight, std::int64_t begin, std::int64_t end);

// The weight with row i taken from row order[i]; plain and quantized weights stay what they are,
// others become plain float32.
Weight select_rows(const Weight& weight, const at::Tensor& order);

// Orders between the two forms of rotary embedding: `interleaved` takes rows of the
// Hugging Face form into that of GGUF, `halves` takes them back. [heads * head_dim] int64.
at::Tensor interleaved(std::int64_t heads, std::int64_t head_dim);
at::Tensor halves(std::int64_t heads, std::int64_t head_dim);

}  // namespace attar
