#include "compress/core/group_rule.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <limits>

#include "compress/linalg/clones.h"

namespace attar {
namespace {

ATTAR_CLONES
void code_lanes(const float* weight, std::int64_t count, const GroupGrid& grid,
                ZeroPoint zero_point, float top, std::uint8_t* codes) {
  const GroupGrid parts = grid;
  for (std::int64_t j = 0; j < count; ++j) {
    codes[j] =
        static_cast<std::uint8_t>(static_cast<int>(code_of(weight[j], parts, zero_point, top)));
  }
}

}  // namespace

GroupRule rule_of(const QuantScheme& scheme, const GridOptions& options) {
  return {scheme.zero_point,
          scheme.scale_type,
          static_cast<float>(scheme.levels() - 1),
          options.search,
          options.full_range,
          scheme.table(),
          levels_of(scheme.block),
          scheme.block == BlockGrid::kMxfp4};
}

float zero_code(const QuantScheme& scheme) {
  const Levels* levels = levels_of(scheme.block);
  return static_cast<float>(levels != nullptr ? levels->zero() : scheme.levels() / 2);
}

float round_to(float value, at::ScalarType type) {
  constexpr float kLargestHalf = 65504.0f, kLargestBFloat16 = 3.3895314e38f;
  if (type == at::kHalf) {
    return static_cast<float>(c10::Half(clamped(value, -kLargestHalf, kLargestHalf)));
  }
  if (type == at::kBFloat16) {
    return static_cast<float>(c10::BFloat16(clamped(value, -kLargestBFloat16, kLargestBFloat16)));
  }
  return value;
}

float round_scale(float value, at::ScalarType type) {
  const float smallest = type == at::kHalf ? 5.9604645e-08f : std::numeric_limits<float>::min();
  const float nearest = round_to(value, type);
  if (std::abs(nearest) >= smallest) return nearest;
  return std::signbit(value) ? -smallest : smallest;
}

void code_group(const float* weight, std::int64_t count, const GroupGrid& grid,
                const GroupRule& rule, std::uint8_t* codes) {
  if (!rule.table && rule.levels == nullptr) {
    return code_lanes(weight, count, grid, rule.zero_point, rule.top, codes);
  }
  for (std::int64_t j = 0; j < count; ++j) {
    codes[j] = static_cast<std::uint8_t>(static_cast<int>(rule.code(weight[j], grid)));
  }
}

}  // namespace attar
