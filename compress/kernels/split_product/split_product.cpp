#include "compress/kernels/split_product/split_product.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "compress/kernels/split_product/task.h"

namespace attar::kernels {
namespace {

constexpr std::int64_t kTaskRows = 96;                        // at most
constexpr std::int64_t kTaskScratch = std::int64_t{5} << 18;  // 1.25 MiB: stays in the L2 cache
constexpr std::size_t kAlignment = 64;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory of this thread, kept from call to call.
void* thread_scratch(std::int64_t bytes) {
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
  return held.get();
}

void check(bool holds, const std::string& rule, std::int64_t got) {
  if (holds) return;
  throw std::invalid_argument("[split_product] " + rule + ", got " + std::to_string(got));
}

void check_weights(const Variant& variant, const void* weights, int pieces) {
  check(has_split_product(variant), "the variant must have tile instructions", 0);
  check(pieces >= 1 && pieces <= 3, "pieces must be in [1, 3]", pieces);
  const auto misplaced =
      static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(weights) % kAlignment);
  check(misplaced == 0, "packed weights must be aligned to 64 bytes; bytes past that", misplaced);
}

}  // namespace

bool has_split_product(const Variant& variant) { return variant.split_product != nullptr; }

std::int64_t split_bytes(std::int64_t columns, std::int64_t inner, int pieces) {
  return panels_of(columns) * panels_of(inner) * kPanel * kPanel * 2 * pieces;
}

int split_pack(const SplitPack& call, const Variant& variant) {
  check_weights(variant, call.weights, call.pieces);
  const std::int64_t first = call.first / kPanel, end = panels_of(call.first + call.count);
  int needed = 1;
#pragma omp parallel for schedule(static) reduction(max : needed) if (end - first > 4)
  for (std::int64_t panel = first; panel < end; ++panel) {
    needed = std::max(needed, variant.split_pack(call, panel));
  }
  return needed;
}

void split_product(const SplitProduct& call, const Variant& variant) {
  check_weights(variant, call.weights, call.pieces);
  if (call.rows <= 0 || call.columns <= 0) return;
  const std::int64_t fitting = kTaskScratch / split_scratch_bytes(kPanel, call.inner) * kPanel;
  const std::int64_t row_step = std::clamp(fitting, kPanel, kTaskRows);
  const std::int64_t blocks = (call.rows + row_step - 1) / row_step;
  // Few rows leave threads idle, unless the outputs are shared out as well.
  const int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const std::int64_t wanted = threads == 1 ? 1 : 2 * threads;
  const std::int64_t panels = panels_of(call.columns);
  const std::int64_t ranges = std::clamp((wanted + blocks - 1) / blocks, std::int64_t{1}, panels);
#pragma omp parallel for schedule(dynamic, 1) if (blocks * ranges > 1)
  for (std::int64_t i = 0; i < blocks * ranges; ++i) {
    const std::int64_t row = i / ranges * row_step, range = i % ranges;
    const std::int64_t row_end = std::min(call.rows, row + row_step);
    variant.split_product(call,
                          {row, row_end, range * panels / ranges, (range + 1) * panels / ranges,
                           thread_scratch(split_scratch_bytes(row_end - row, call.inner))});
  }
}

}  // namespace attar::kernels
