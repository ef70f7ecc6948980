#include "compress/core/allocator.h"

#ifdef __GLIBC__
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#endif

#include <atomic>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <vector>

namespace attar {
namespace {

std::atomic<bool> gives_back = false;

#ifdef __GLIBC__
constexpr int kLargeBlock = 1 << 20;
constexpr int kLargestKept = 32 << 20;
constexpr int kKeptAtTheTop = 128 << 10;  // glibc's default

// LibTorch's allocator with the tensors freed last kept for the next ones of their size.
class RecentBlocks final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes >= kMakesRoom) clear();
    void* data = take(bytes);
    if (data == nullptr) data = fresh(bytes);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  // Tensors outlive everything else at the end of a process, so this lives for ever.
  static RecentBlocks& instance() {
    static auto* const blocks = new RecentBlocks;
    return *blocks;
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    shrink_to(0);
  }

 private:
  static constexpr std::size_t kSmallest = kLargeBlock, kLargest = 16 << 20, kTogether = 32 << 20;
  static constexpr std::size_t kMakesRoom = 128 << 20;
  // How much more than asked for the C library's block may hold: a page and the alignment.
  static constexpr std::size_t kSlack = 8 << 10;

  RecentBlocks() { kept_.reserve(kTogether / kSmallest + 1); }  // giving back never allocates

  void* fresh(std::size_t bytes) {
    try {
      return below_->raw_allocate(bytes);
    } catch (const c10::Error&) {
      clear();
      return below_->raw_allocate(bytes);
    }
  }

  void* take(std::size_t bytes) {
    if (bytes < kSmallest || bytes > kLargest) return nullptr;
    const std::lock_guard lock(mutex_);
    for (auto block = kept_.rbegin(); block != kept_.rend(); ++block) {
      if (block->bytes < bytes || block->bytes > bytes + kSlack) continue;
      void* data = block->data;
      together_ -= block->bytes;
      kept_.erase(std::next(block).base());
      return data;
    }
    return nullptr;
  }

  void keep(void* data) {
    const std::size_t bytes = data == nullptr ? 0 : malloc_usable_size(data);
    if (bytes < kSmallest || bytes > kLargest + kSlack) return below_->raw_deallocate(data);
    const std::lock_guard lock(mutex_);
    kept_.push_back({data, bytes});
    together_ += bytes;
    shrink_to(kTogether);
  }

  void shrink_to(std::size_t most) {
    auto block = kept_.begin();
    for (; together_ > most; ++block) {
      below_->raw_deallocate(block->data);
      together_ -= block->bytes;
    }
    kept_.erase(kept_.begin(), block);
  }

  static void release(void* data) { instance().keep(data); }

  struct Kept {
    void* data;
    std::size_t bytes;
  };

  c10::Allocator* const below_ = c10::GetDefaultCPUAllocator();
  std::mutex mutex_;
  std::vector<Kept> kept_;  // the one freed last behind
  std::size_t together_ = 0;
};
#endif

}  // namespace

void give_large_blocks_back() {
  gives_back = true;
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, kLargeBlock);
  if (kKeepsRecentTensors) c10::SetCPUAllocator(&RecentBlocks::instance());
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
  RecentBlocks::instance().clear();
  malloc_trim(0);
#endif
}

}  // namespace attar
