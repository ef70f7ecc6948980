#include "compress/core/streamed_memory.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <cstdlib>
#include <memory>
#include <mutex>
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

namespace {

struct Stretch {
  at::Tensor memory;
  std::int64_t used = 0;
};

}  // namespace

at::Tensor streamed_piece(std::int64_t bytes) {
  constexpr std::int64_t kStretch = std::int64_t{32} << 20, kLine = 64;
  static std::mutex mutex;
  static std::weak_ptr<Stretch> current;
  const std::int64_t size = (bytes + kLine - 1) / kLine * kLine;
  if (size > kStretch / 4) return streamed_memory(bytes);
  const std::lock_guard lock(mutex);
  std::shared_ptr<Stretch> stretch = current.lock();
  if (!stretch || stretch->used + size > kStretch) {
    stretch = std::make_shared<Stretch>(Stretch{streamed_memory(kStretch)});
    current = stretch;
  }
  auto* at = stretch->memory.mutable_data_ptr<std::uint8_t>() + stretch->used;
  stretch->used += size;
  return at::from_blob(
      at, {bytes}, [stretch](void*) {}, at::kByte);
}

}  // namespace attar
