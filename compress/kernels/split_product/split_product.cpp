#include "compress/kernels/split_product/split_product.h"

#include <omp.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "compress/kernels/scratch.h"
#include "compress/kernels/split_product/task.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

// Every task streams all weights by: more rows a task, fewer times. Measured on 2 MiB of L2 cache.
constexpr std::int64_t kTaskRows = 256;
constexpr std::int64_t kTaskScratch = std::int64_t{7} << 19;
constexpr std::size_t kAlignment = 64;

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

// Threads that so many multiplications are shared out to.
int threads_for(std::int64_t multiplications) {
  return omp_in_parallel() || multiplications < kSharedProduct ? 1 : omp_get_max_threads();
}

template <class Call>
std::int64_t rows_of_a_task(const Call& call) {
  const std::int64_t fitting = kTaskScratch / scratch_bytes(call, kPanel) * kPanel;
  return std::clamp(fitting, kPanel, kTaskRows);
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
  check_weights(variant, call.layer.weights, call.layer.pieces);
  if (call.rows <= 0 || call.layer.columns <= 0) return;
  const std::int64_t step = rows_of_a_task(call);
  const std::int64_t blocks = (call.rows + step - 1) / step;
  // Few rows leave threads idle, unless the outputs are shared out as well.
  const int threads = threads_for(call.rows * call.layer.columns * call.layer.inner);
  const std::int64_t wanted = threads == 1 ? 1 : 2 * threads;
  const std::int64_t panels = panels_of(call.layer.columns);
  const std::int64_t ranges = std::clamp((wanted + blocks - 1) / blocks, std::int64_t{1}, panels);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (blocks * ranges > 1)
  for (std::int64_t i = 0; i < blocks * ranges; ++i) {
    const std::int64_t row = i / ranges * step, range = i % ranges;
    const std::int64_t end = std::min(call.rows, row + step);
    variant.split_product(call, {row, end, range * panels / ranges, (range + 1) * panels / ranges,
                                 thread_scratch(scratch_bytes(call, end - row))});
  }
}

void split_finish(const SplitFinish& call, const Variant& variant) {
  for (const SplitLayer* layer : {&call.output, &call.gate_up, &call.down}) {
    check_weights(variant, layer->weights, layer->pieces);
  }
  check(call.down.inner % kPanel == 0, "the MLP must be a multiple of 32 wide", call.down.inner);
  check(call.gate_up.columns == 2 * call.down.inner, "gate and up must be as wide as down reads",
        call.gate_up.columns);
  std::int64_t step = rows_of_a_task(call);
  const int threads = threads_for(call.rows * 2 * call.gate_up.inner * call.down.inner);
  if (threads > 1) step = std::min(step, panels_of(call.rows / (2 * threads) + 1) * kPanel);
  const std::int64_t blocks = (call.rows + step - 1) / step;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (blocks > 1)
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t row = i * step, end = std::min(call.rows, row + step);
    variant.split_finish(call, {row, end, 0, 0, thread_scratch(scratch_bytes(call, end - row))});
  }
}

}  // namespace attar::kernels
