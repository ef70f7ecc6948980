// Working memory of the calling thread, kept from call to call.
#pragma once

#include <cstdint>

namespace attar::kernels {

// At least `bytes`, aligned to a page; what it held before is lost when it grows. Each call of a
// thread gives the same memory: one user at a time. Throws std::bad_alloc.
std::uint8_t* thread_scratch(std::int64_t bytes);

}  // namespace attar::kernels
