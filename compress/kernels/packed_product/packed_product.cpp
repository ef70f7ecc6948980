#include "compress/kernels/packed_product/packed_product.h"

#include <omp.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "compress/kernels/packed_product/task.h"
#include "compress/kernels/scratch.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

// Every task streams all weights by: more rows a task, fewer times. Measured on 2 MiB of L2 cache.
constexpr std::int64_t kTaskRows = 256;
constexpr std::int64_t kTaskScratch = std::int64_t{7} << 19;
constexpr std::size_t kAlignment = 64;

void check(bool holds, const std::string& rule, std::int64_t got) {
  if (holds) return;
  throw std::invalid_argument("[packed_product] " + rule + ", got " + std::to_string(got));
}

void check_weights(const void* weights, int pieces) {
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

PackType type_to_hold(PackType type, const Variant& variant) {
  return variant.widens_slowly && type == PackType::f16 ? PackType::f32 : type;
}

std::int64_t packed_bytes(std::int64_t columns, std::int64_t inner, int pieces, PackType held,
                          const Variant& variant) {
  if (!variant.splits) return panels_of(columns) * inner * kPanel * (held == PackType::f32 ? 4 : 2);
  return panels_of(columns) * panels_of(inner) * kPanel * kPanel * 2 * pieces;
}

int pack_matrix(const PackMatrix& call, const Variant& variant) {
  check_weights(call.weights, call.pieces);
  check(!call.turned || call.type == PackType::f32, "turned values must be float32; type",
        static_cast<std::int64_t>(call.type));
  check(call.held == PackType::f32 || call.held == call.type,
        "panels hold float32 or the type of the values; held",
        static_cast<std::int64_t>(call.held));
  if (call.turned && variant.splits) {
    std::vector<float> straight(static_cast<std::size_t>(call.count * call.inner));
    variant.transpose({static_cast<const float*>(call.values),
                       call.stride ? call.stride : call.count, call.inner, call.count,
                       straight.data(), call.inner});
    PackMatrix plain = call;
    plain.values = straight.data();
    plain.turned = false;
    return pack_matrix(plain, variant);
  }
  const std::int64_t first = call.first / kPanel, end = panels_of(call.first + call.count);
  int needed = 1;
#pragma omp parallel for schedule(static) reduction(max : needed) if (end - first > 4)
  for (std::int64_t panel = first; panel < end; ++panel) {
    needed = std::max(needed, variant.pack_panel(call, panel));
  }
  return needed;
}

void packed_product(const PackedProduct& call, const Variant& variant) {
  check_weights(call.layer.weights, call.layer.pieces);
  check(!call.turned || !call.norm, "turned rows have no norm; inputs", call.layer.inner);
  if (call.rows <= 0 || call.layer.columns <= 0) return;
  const std::int64_t inner = call.layer.inner, step = rows_of_a_task(call);
  const std::int64_t blocks = (call.rows + step - 1) / step;
  // Few rows leave threads idle, unless the outputs are shared out as well.
  const int threads = threads_for(call.rows * call.layer.columns * inner);
  const std::int64_t wanted = threads == 1 ? 1 : 2 * threads;
  const std::int64_t panels = panels_of(call.layer.columns);
  const std::int64_t ranges = std::clamp((wanted + blocks - 1) / blocks, std::int64_t{1}, panels);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (blocks * ranges > 1)
  for (std::int64_t i = 0; i < blocks * ranges; ++i) {
    const std::int64_t row = i / ranges * step, range = i % ranges;
    const std::int64_t rows = std::min(call.rows, row + step) - row;
    const std::int64_t own = (scratch_bytes(call, rows) + 63) / 64 * 64;
    std::uint8_t* scratch = thread_scratch(own + (call.turned ? rows * inner * 4 : 0));
    PackedTask task{row, row + rows, range * panels / ranges, (range + 1) * panels / ranges,
                    scratch};
    if (!call.turned) {
      variant.packed_product(call, task);
      continue;
    }
    auto* straight = reinterpret_cast<float*>(scratch + own);
    variant.transpose({call.x + row, call.x_stride, inner, rows, straight, inner});
    PackedProduct part = call;
    part.x = straight;
    part.x_stride = inner;
    part.out += row * call.out_stride;
    if (part.added) part.added += row * call.out_stride;
    task.row_begin = 0;
    task.row_end = rows;
    variant.packed_product(part, task);
  }
}

void packed_product_outputs(const PackedProduct& call, std::int64_t begin, std::int64_t end,
                            const Variant& variant) {
  check_weights(call.layer.weights, call.layer.pieces);
  check(!call.turned, "rows must not be turned; inputs", call.layer.inner);
  check(begin % kPanel == 0, "outputs begin with a panel of 32", begin);
  if (call.rows <= 0 || begin >= end) return;
  variant.packed_product(call, {0, call.rows, begin / kPanel, panels_of(end),
                                thread_scratch(scratch_bytes(call, call.rows))});
}

void packed_finish(const PackedFinish& call, const Variant& variant) {
  for (const PackedLayer* layer : {&call.output, &call.gate_up, &call.down}) {
    check_weights(layer->weights, layer->pieces);
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
    variant.packed_finish(call, {row, end, 0, 0, thread_scratch(scratch_bytes(call, end - row))});
  }
}

}  // namespace attar::kernels
