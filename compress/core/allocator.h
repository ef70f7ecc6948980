// What the C library does with freed memory, on glibc; elsewhere nothing.
#pragma once

namespace attar {

// For a program to call at its start: large tensors come from the system and go back to it at once.
// Otherwise the C library keeps what was freed, and a run holds more than twice what it uses.
void give_large_blocks_back();

// A loop whose steps ask for the same buffers again keeps them while this lives: pages that come
// anew must be zeroed (three distillation steps of SmolLM2 took 33.5 processor seconds without
// this, 30.3 and 31.3 with it). Blocks of more than 32 MB, glibc's limit, come from the system in
// any case.
class KeepLargeBlocks {
 public:
  KeepLargeBlocks();
  ~KeepLargeBlocks();  // as it was before
  KeepLargeBlocks(const KeepLargeBlocks&) = delete;
  KeepLargeBlocks& operator=(const KeepLargeBlocks&) = delete;
};

}  // namespace attar
