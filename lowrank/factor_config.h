// How low-rank passes store factors: the options that all of them share.
#pragma once

#include <string>

#include "compress/core/config.h"
#include "compress/core/fields.h"
#include "lowrank/stored_factors.h"

namespace attar {

struct FactorConfig {
  std::string type = "f16";
  int bits = 0;
  std::int64_t group_size = 32;

  template <class Visit>
  static void factor_fields(Visit&& visit) {
    using C = FactorConfig;
    visit("type", &C::type, OneOf{{"f16", "bf16", "f32"}}, "What factors are stored as.");
    visit("bits", &C::bits, Range{0, 8},
          "Round factors to codes of so many bits (2 to 8), the left one refitted in between; 0: "
          "plain values.");
    visit("group_size", &C::group_size, Range<std::int64_t>{1, 1 << 16},
          "With bits: columns of a factor that share a scale; halved until it divides.");
  }

  // Throws UsageError for 1 bit.
  FactorStorage storage(std::string_view where) const;
};

// Share of a layer's parameters, counted as float16 values, that factors of this rank take.
double parameters_of(const LinearShape& shape, std::int64_t rank, const FactorStorage& storage);

}  // namespace attar
