// The scale of one short group of weights by trial: what the searching quantizers of ggml's block
// types do before their scales are rounded.
#pragma once

#include <cstdint>

#include "compress/kernels/simd/inline.h"
#include "compress/kernels/variants.h"

namespace attar::kernels {

enum class GroupFit : std::uint8_t {
  // x ~ scale q - minimum, q in [0, top], minimum >= 0. Starts from the range of x, tries `tries`
  // inverse steps (first + i stride + top) / range, each followed by the least squares of scale and
  // minimum; keeps the least priced error: squares, or magnitudes (affine_absolute).
  affine,
  affine_absolute,
  // x ~ scale (q - top), q in [0, 2 top - 1]. Inverse steps -(top + i/10) / x_max, |i| <= 9, x_max
  // the x of largest magnitude; keeps the largest (sum p x l)^2 / sum p l^2.
  signed_codes,
  // The same from i = 0 alone, then at most five sweeps that move single codes.
  signed_descent,
  // x ~ scale T[q], T = kTable16. Inverse steps (T[0] + i) / x_max, |i| <= 7.
  table,
};

// 16 points, denser around 0: IQ4_NL and IQ4_XS.
inline constexpr std::int8_t kTable16[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                             1,    13,   25,  38,  53,  69,  89,  113};

// The point of kTable16 nearest to x; the upper one of two that are equally near.
ATTAR_INLINE int nearest_of_table16(float x) {
  int index = 0;
  for (int i = 0; i < 15; ++i) {
    const float middle = static_cast<float>(kTable16[i] + kTable16[i + 1]) / 2;
    index += x < middle ? 0 : 1;
  }
  return index;
}

// Groups of `size` <= 32 values. Sums are folded in the order of the elements, each product and sum
// rounded to float32, so all variants give the same bits, which are those of a plain loop.
struct BlockSearch {
  GroupFit fit;
  int size;             // of a group
  int top;              // not for table
  float first, stride;  // affine
  int tries;
  const float* values;  // [groups, size]
  const float* prices;  // [groups, size], >= 0: what a squared (absolute) error costs
  float* scale;         // [groups]
  float* minimum;       // [groups], affine only
  std::uint8_t* codes;  // [groups, size] before the scale is rounded; may be null
};
// One thread; callers run chunks of groups in parallel. No finite x gives a NaN that spreads to
// another group.
void block_search(const BlockSearch& call, std::int64_t groups,
                  const Variant& variant = active_variant());

// Errors of groups on grids that stand: sum over a group of price (x - value)^2, value the nearest
// of scale q + offset (affine: q in [0, top]; signed_codes: q in [-top, top - 1]; table: q in
// kTable16). A scale of 0 has one value, `offset`.
//   moments  [groups, 6] or null: sums of p, p q, p q q, p x, p q x, p x x with these codes
struct GroupPrices {
  GroupFit fit;
  int size;
  int top;
  const float* values;  // [groups, size]
  const float* prices;  // [groups, size]
  const float* scale;   // [groups]
  const float* offset;  // [groups]
  float* error;         // [groups]
  float* moments;
};
void group_prices(const GroupPrices& call, std::int64_t groups,
                  const Variant& variant = active_variant());

}  // namespace attar::kernels
