#include "compress/core/streamed_memory.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace attar {

at::Tensor streamed_memory(std::int64_t bytes) {
  constexpr std::size_t kLargePage = std::size_t{1} << 21;
  const auto size = static_cast<std::size_t>(bytes);
  void* memory = nullptr;
  if (posix_memalign(&memory, kLargePage, size) != 0) throw std::bad_alloc();
  // Whole large pages only, so that nothing is spent beyond the end; refusal changes nothing.
  if (size >= kLargePage) madvise(memory, size / kLargePage * kLargePage, MADV_HUGEPAGE);
  return at::from_blob(
      memory, {bytes}, [](void* held) { std::free(held); }, at::kByte);
}

}  // namespace attar
