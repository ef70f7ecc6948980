// What becomes of freed memory, with glibc; elsewhere nothing.
#pragma once

#include <cstdlib>  // __GLIBC__

namespace attar {

// Whether freed tensors are kept as below: not where LibTorch may allocate by other means than the
// C library, and not beside a sanitizer, which is to see what is freed.
#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
inline constexpr bool kKeepsRecentTensors = true;
#else
inline constexpr bool kKeepsRecentTensors = false;
#endif

// For a program to call at its start: memory of 1 MB and more comes from the system and goes back
// to it at once. Otherwise the C library keeps what was freed, and a run holds more than twice what
// it uses. Of freed tensors of 1 to 16 MB the last 32 MB stay for the next ones of their size,
// since pages that come anew must be zeroed, a sixth of the time of AWQ and GPTQ on two windows of
// SmolLM2. A tensor of 128 MB or more gives them back first.
void give_large_blocks_back();

// A loop whose steps ask for the same buffers again keeps them while this lives (before tensors
// were kept as above, three distillation steps of SmolLM2 took 33.5 processor seconds without this,
// 30.3 and 31.3 with it). Blocks of more than 32 MB, glibc's limit, come from the system in any
// case.
class KeepLargeBlocks {
 public:
  KeepLargeBlocks();
  ~KeepLargeBlocks();  // as it was before
  KeepLargeBlocks(const KeepLargeBlocks&) = delete;
  KeepLargeBlocks& operator=(const KeepLargeBlocks&) = delete;
};

}  // namespace attar
