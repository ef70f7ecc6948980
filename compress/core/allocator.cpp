#include "compress/core/allocator.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <atomic>
#include <cstdlib>
#include <limits>

namespace attar {
namespace {

std::atomic<bool> gives_back = false;

#ifdef __GLIBC__
constexpr int kLargeBlock = 1 << 20;
constexpr int kLargestKept = 32 << 20;
constexpr int kKeptAtTheTop = 128 << 10;  // glibc's default
#endif

}  // namespace

void give_large_blocks_back() {
  gives_back = true;
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, kLargeBlock);
#endif
}

KeepLargeBlocks::KeepLargeBlocks() {
#ifdef __GLIBC__
  if (!gives_back) return;  // then glibc adapts by itself
  mallopt(M_MMAP_THRESHOLD, kLargestKept);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

KeepLargeBlocks::~KeepLargeBlocks() {
#ifdef __GLIBC__
  if (!gives_back) return;
  mallopt(M_MMAP_THRESHOLD, kLargeBlock);
  mallopt(M_TRIM_THRESHOLD, kKeptAtTheTop);
  malloc_trim(0);
#endif
}

}  // namespace attar
