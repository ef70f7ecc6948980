// Independent rows over threads. Not for files with instruction-set flags.
#pragma once

#include <algorithm>
#include <cstdint>

namespace attar::kernels {

// Multiplications below which a product stays on the calling thread: to wake the others and wait
// for them costs more, and many times more on a machine that is busy with something else.
inline constexpr std::int64_t kSharedProduct = std::int64_t{1} << 20;

// Calls body(begin, end) on ranges that cover [0, rows), each of about 16 Ki elements or more. A
// row's result must not depend on its range.
template <class Body>
void for_row_ranges(std::int64_t rows, std::int64_t elements_per_row, const Body& body) {
  constexpr std::int64_t kElements = std::int64_t{1} << 14;
  if (rows <= 0) return;
  const std::int64_t step =
      std::max<std::int64_t>(1, kElements / std::max<std::int64_t>(1, elements_per_row));
  const std::int64_t ranges = (rows + step - 1) / step;
#pragma omp parallel for schedule(dynamic, 4) if (ranges > 4)
  for (std::int64_t i = 0; i < ranges; ++i) {
    body(i * step, std::min(rows, (i + 1) * step));
  }
}

}  // namespace attar::kernels
