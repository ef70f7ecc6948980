// One group of weights on a grid that stands: what its codes are and what they stand for. Each call
// works on plain arrays of one row, so callers run rows in parallel.
#pragma once

#include <cstdint>

#include "compress/core/grid.h"
#include "compress/core/levels.h"
#include "compress/core/weight.h"
#include "compress/kernels/block_search/block_search.h"

namespace attar {

// As a file holds them: zero is an integer code (kSymmetric: that of 0) or a minimum (kMinimum).
struct GroupGrid {
  float scale = 1;
  float zero = 0;
};

struct GroupRule {
  ZeroPoint zero_point = ZeroPoint::kInteger;
  at::ScalarType scale_type = at::kHalf;
  float top = 15;  // largest code
  bool search = false;
  bool full_range = false;
  bool table = false;              // of the codes only 128 + kTable16
  const Levels* levels = nullptr;  // not null for a number format
  bool power_of_two = false;       // and its scales are

  float middle() const { return (top + 1) / 2; }
  float code(float weight, const GroupGrid& grid) const;  // of the nearest grid point
  float value(float code, const GroupGrid& grid) const;
};

GroupRule rule_of(const QuantScheme& scheme, const GridOptions& options = {});

// The code of 0 of a symmetric grid.
float zero_code(const QuantScheme& scheme);

// `value` in the nearest finite number of `type`, 0 included.
float round_to(float value, at::ScalarType type);

// `value` in the nearest number of `type` (half, bfloat16, float) that is neither 0 nor infinite.
float round_scale(float value, at::ScalarType type);

// The nearest grid point of each weight: codes 0..top, ties to even.
void code_group(const float* weight, std::int64_t count, const GroupGrid& grid,
                const GroupRule& rule, std::uint8_t* codes);

// x rounded to an integer, ties to even; |x| < 2^22.
inline float round_even(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  return (x + kMagic) - kMagic;
}

// x within [low, high]; low for a NaN.
inline float clamped(float x, float low, float high) {
  x = x > low ? x : low;
  return x < high ? x : high;
}

// The code of the nearest grid point. The quotient is a division: a product with 1 / scale would
// turn ties.
inline float code_of(float weight, const GroupGrid& grid, ZeroPoint zero_point, float top) {
  constexpr float kFar = 65536.0f;  // beyond every code
  if (zero_point == ZeroPoint::kMinimum) {
    return round_even(clamped((weight - grid.zero) / grid.scale, 0.0f, top));
  }
  return clamped(round_even(clamped(weight / grid.scale, -kFar, kFar)) + grid.zero, 0.0f, top);
}

// The same for the codes of a table (QuantScheme::table).
inline float table_code_of(float weight, const GroupGrid& grid) {
  return 128.0f +
         static_cast<float>(kernels::kTable16[kernels::nearest_of_table16(weight / grid.scale)]);
}

// The value of a code.
inline float value_of(float code, const GroupGrid& grid, ZeroPoint zero_point) {
  return zero_point == ZeroPoint::kMinimum ? grid.scale * code + grid.zero
                                           : grid.scale * (code - grid.zero);
}

inline float GroupRule::code(float weight, const GroupGrid& grid) const {
  if (levels != nullptr) return static_cast<float>(levels->nearest(weight / grid.scale));
  return table ? table_code_of(weight, grid) : code_of(weight, grid, zero_point, top);
}

inline float GroupRule::value(float code, const GroupGrid& grid) const {
  if (levels == nullptr) return value_of(code, grid, zero_point);
  return grid.scale * levels->value(static_cast<std::uint8_t>(static_cast<int>(code)));
}

}  // namespace attar
