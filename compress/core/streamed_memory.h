// Memory of weights that are streamed from end to end again and again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attar {

// Uninitialised bytes, in large pages where the system has them: every 4 KiB of small ones cost a
// walk of the page table. Aligned to 2 MiB. Throws std::bad_alloc.
at::Tensor streamed_memory(std::int64_t bytes);

// The same for pieces that are smaller than a page: many share one stretch of memory, which goes
// back when the last of them does. Aligned to 64 bytes.
at::Tensor streamed_piece(std::int64_t bytes);

}  // namespace attar
