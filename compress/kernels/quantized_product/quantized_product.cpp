#include "compress/kernels/quantized_product/quantized_product.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "compress/kernels/quantized_product/layout.h"
#include "compress/kernels/round_tokens/round_tokens.h"
#include "compress/kernels/scratch.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {

void check_quantized(bool holds, const char* rule, std::int64_t got) {
  if (holds) return;
  throw std::invalid_argument(std::string("[quantized_product] ") + rule + ", got " +
                              std::to_string(got));
}

namespace {

// Divisions and sums of float32 in one order: the same bits whatever it is compiled for.
void round_token(const float* x, const RoundedRows& out, std::int64_t row) {
  const float scale = token_scale(x, out.inner);
  std::int64_t at = first_block(out, row);
  for (std::int64_t b = 0; b < out.inner; b += kBlockInputs, at += out.tile) {
    std::int8_t* values = out.values + at * kBlockInputs;
    std::int32_t sum = 0;
    for (std::int64_t k = 0; k < kBlockInputs; ++k) {
      values[k] = scale > 0 ? static_cast<std::int8_t>(token_code(x[b + k], scale)) : 0;
      sum += values[k];
    }
    out.scales[at] = scale;
    set_sums(out, at, sum);
  }
}

void check_product(const QuantizedProduct& call) {
  check_quantized(call.x.inner == call.layer.inner, "rows must be as wide as the layer reads",
                  call.x.inner);
  const auto misplaced =
      static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(call.layer.weights) % kLine);
  check_quantized(misplaced == 0, "packed weights must be aligned to 64 bytes; bytes past that",
                  misplaced);
}

}  // namespace

std::int64_t rounded_bytes(std::int64_t rows, std::int64_t inner) {
  const std::int64_t tokens = rows == 1 ? 1 : (rows + kTileTokens - 1) / kTileTokens * kTileTokens;
  const std::int64_t blocks = inner / kBlockInputs;
  return line_up(tokens * inner) + 5 * line_up(tokens * blocks * 4);
}

RoundedRows rounded_rows(void* memory, std::int64_t rows, std::int64_t inner, RoundedBy by) {
  const std::int64_t tile = rows == 1 ? 1 : kTileTokens;
  const std::int64_t tokens = (rows + tile - 1) / tile * tile;
  const std::int64_t each = line_up(tokens * (inner / kBlockInputs) * 4);
  auto* at = static_cast<std::uint8_t*>(memory);
  std::uint8_t* numbers = at + line_up(tokens * inner);
  return {rows,
          inner,
          by,
          tile,
          reinterpret_cast<std::int8_t*>(at),
          reinterpret_cast<float*>(numbers),
          reinterpret_cast<float*>(numbers + each),
          reinterpret_cast<std::int32_t*>(numbers + 2 * each),
          reinterpret_cast<std::int32_t*>(numbers + 3 * each)};
}

void round_rows(const RoundRows& call, const Variant& variant) {
  const RoundedRows& out = call.out;
  check_quantized(out.inner % kBlockInputs == 0, "inputs must be a multiple of 32", out.inner);
  for_row_ranges(out.rows, out.inner, [&](std::int64_t begin, std::int64_t end) {
    if (out.by == RoundedBy::block) return variant.round_rows(call, begin, end);
    for (; begin < end; ++begin) round_token(call.x + begin * call.x_stride, out, begin);
  });
  const std::int64_t blocks = out.inner / kBlockInputs;
  for (std::int64_t row = out.rows; row % out.tile != 0; ++row) {
    std::int64_t at = first_block(out, row);
    for (std::int64_t b = 0; b < blocks; ++b, at += out.tile) {
      std::memset(out.values + at * kBlockInputs, 0, kBlockInputs);
      out.scales[at] = out.sums[at] = 0;
      out.offsets[at] = out.halves[2 * at] = out.halves[2 * at + 1] = 0;
    }
  }
}

void quantized_product(const QuantizedProduct& call, const Variant& variant) {
  check_product(call);
  if (call.x.rows <= 0 || call.layer.columns <= 0) return;
  const std::int64_t panels = output_panels(call.layer.columns);
  const std::int64_t tiles = (call.x.rows + call.x.tile - 1) / call.x.tile;
  const bool shared =
      !omp_in_parallel() && call.x.rows * call.layer.columns * call.layer.inner >= kSharedProduct;
  const std::int64_t threads = shared ? omp_get_max_threads() : 1;
  // Few tokens: a panel's codes come from memory, each thread streams its own. Many: a thread takes
  // panels as it goes, each for all tokens.
  const std::int64_t ranges =
      threads == 1 ? 1 : std::min(panels, call.x.rows < kTileTokens ? threads : 8 * threads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (ranges > 1)
  for (std::int64_t i = 0; i < ranges; ++i) {
    variant.quantized_product(
        call, {i * panels / ranges, (i + 1) * panels / ranges, 0, tiles,
               thread_scratch(task_scratch_bytes(call.layer.inner, call.layer.format))});
  }
}

void quantized_product_outputs(const QuantizedProduct& call, std::int64_t begin, std::int64_t end,
                               const Variant& variant) {
  check_product(call);
  check_quantized(begin % kPanelOutputs == 0, "outputs must begin a panel of 16", begin);
  const std::int64_t tiles = (call.x.rows + call.x.tile - 1) / call.x.tile;
  if (begin >= end || tiles == 0) return;
  variant.quantized_product(
      call, {begin / kPanelOutputs, output_panels(end), 0, tiles,
             thread_scratch(task_scratch_bytes(call.layer.inner, call.layer.format))});
}

}  // namespace attar::kernels
