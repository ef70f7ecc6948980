#include "compress/kernels/scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace attar::kernels {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

std::uint8_t* thread_scratch(std::int64_t bytes) {
  thread_local std::unique_ptr<void, Free> held;
  thread_local std::size_t size = 0;
  const std::size_t wanted = (static_cast<std::size_t>(bytes) + 4095) / 4096 * 4096;
  if (size < wanted) {
    held.reset();
    size = 0;
    held.reset(std::aligned_alloc(4096, wanted));
    if (!held) throw std::bad_alloc();
    size = wanted;
  }
  return static_cast<std::uint8_t*>(held.get());
}

}  // namespace attar::kernels
