// Number grids whose points are not evenly spaced (QuantScheme::floating): value = scale * level.
//
//   FP8    E4M3 without infinities (Micikevicius et al. 2022, arXiv:2209.05433): the code is the
//          byte; 0x7f and 0xff, its NaNs, are no codes. Largest 448
//   MXFP4  E2M1 (OCP Microscaling Formats 1.0, 5.3.3): the code is the nibble. Largest 6
//   NF4    16 quantiles of a normal distribution (Dettmers et al. 2023, arXiv:2305.14314, appendix
//          E), ascending. Largest 1
#pragma once

#include <array>
#include <cstdint>

#include "compress/core/weight.h"

namespace attar {

class Levels {
 public:
  float value(std::uint8_t code) const { return values_[code]; }
  float largest() const { return sorted_[count_ - 1].value; }
  std::uint8_t zero() const { return zero_; }

  // The code of the nearest level, at a tie the even one; the outermost beyond them. Never -0.
  std::uint8_t nearest(float x) const;

  // body(value, code) of every level but -0, in the order of the values.
  template <class Body>
  void for_ascending(const Body& body) const {
    for (int i = 0; i < count_; ++i) body(sorted_[i].value, sorted_[i].code);
  }

 private:
  friend Levels make_levels(BlockGrid grid);
  struct Level {
    float value;
    std::uint8_t code;
  };
  std::array<float, 256> values_{};
  std::array<Level, 256> sorted_{};
  std::array<float, 255> from_{};  // the smallest x that is nearer to sorted_[i + 1] than [i]
  int count_ = 0;
  std::uint8_t zero_ = 0;
};

// Null for the grids that are no such.
const Levels* levels_of(BlockGrid grid);

// The scale of MXFP4 for a group whose largest magnitude is `reach` > 0, by OCP's rule
// 2^(floor(log2 reach) - 2), within what both E8M0 and a normal float32 hold.
float power_of_two_scale(float reach);

}  // namespace attar
