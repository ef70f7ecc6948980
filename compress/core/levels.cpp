#include "compress/core/levels.h"

#include <c10/util/Float8_e4m3fn.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace attar {
namespace {

constexpr float kE2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
constexpr float kNf4[16] = {-1.0f,
                            -0.6961928009986877f,
                            -0.5250730514526367f,
                            -0.39491748809814453f,
                            -0.28444138169288635f,
                            -0.18477343022823334f,
                            -0.09105003625154495f,
                            0.0f,
                            0.07958029955625534f,
                            0.16093020141124725f,
                            0.24611230194568634f,
                            0.33791524171829224f,
                            0.44070982933044434f,
                            0.5626170039176941f,
                            0.7229568362236023f,
                            1.0f};

float level(BlockGrid grid, int code) {
  switch (grid) {
    case BlockGrid::kFp8:
      return static_cast<float>(
          c10::Float8_e4m3fn(static_cast<std::uint8_t>(code), c10::Float8_e4m3fn::from_bits()));
    case BlockGrid::kMxfp4:
      return code < 8 ? kE2m1[code] : -kE2m1[code - 8];
    case BlockGrid::kNf4:
      return kNf4[code];
    default:
      throw std::logic_error("levels: the points of this grid are evenly spaced");
  }
}

}  // namespace

Levels make_levels(BlockGrid grid) {
  Levels levels;
  for (int code = 0; code < block_scheme(grid).levels(); ++code) {
    const float value = level(grid, code);
    levels.values_[code] = value;
    if (std::isnan(value) || (value == 0 && std::signbit(value))) continue;
    levels.sorted_[levels.count_++] = {value, static_cast<std::uint8_t>(code)};
    if (value == 0) levels.zero_ = static_cast<std::uint8_t>(code);
  }
  std::sort(levels.sorted_.begin(), levels.sorted_.begin() + levels.count_,
            [](const auto& a, const auto& b) { return a.value < b.value; });
  for (int i = 0; i + 1 < levels.count_; ++i) {
    const float middle = (levels.sorted_[i].value + levels.sorted_[i + 1].value) / 2;
    const bool up = levels.sorted_[i + 1].code % 2 == 0;
    levels.from_[i] = up ? middle : std::nextafter(middle, std::numeric_limits<float>::infinity());
  }
  return levels;
}

std::uint8_t Levels::nearest(float x) const {
  const auto* begin = from_.data();
  return sorted_[std::upper_bound(begin, begin + count_ - 1, x) - begin].code;
}

const Levels* levels_of(BlockGrid grid) {
  static const Levels fp8 = make_levels(BlockGrid::kFp8);
  static const Levels mxfp4 = make_levels(BlockGrid::kMxfp4);
  static const Levels nf4 = make_levels(BlockGrid::kNf4);
  switch (grid) {
    case BlockGrid::kFp8:
      return &fp8;
    case BlockGrid::kMxfp4:
      return &mxfp4;
    case BlockGrid::kNf4:
      return &nf4;
    default:
      return nullptr;
  }
}

float power_of_two_scale(float reach) {
  constexpr int kLargestOfE2m1 = 2;  // 6 = 1.5 * 2^2
  return std::ldexp(1.0f, std::clamp(std::ilogb(reach) - kLargestOfE2m1, -126, 127));
}

}  // namespace attar
