// Plain values into the rows of a tensor of a GGUF file: each piece is read, rounded, compared and
// handed on while it is in the cache, and nothing is read or written twice.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>

#include "compress/io/ggml_type.h"

namespace attar {

struct EncodeRows {
  io::GgmlType type;
  at::Tensor values;  // [O, I] float32 | float16 | bfloat16, contiguous
  at::Tensor order;   // [O] int64: row i is values[order[i]]; undefined: row i

  // Takes the bytes of the rows from `row` on. Called by several threads at once.
  std::function<void(std::int64_t row, std::span<const std::byte> bytes)> write;
  // Rows of `values` that are not read again: some at a time, all at the end where there is an
  // order. May be empty.
  std::function<void(const at::Tensor& rows)> done;
};

// The largest |encoded value - value|, NaN when one of them is NaN. Throws BadInput when I does not
// fill blocks of the type.
double encode_rows(const EncodeRows& call);

}  // namespace attar
