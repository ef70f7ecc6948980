// The largest difference of values from their blocks, while both are at hand.
#pragma once

#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

template <class S>
struct Worst {
  typename S::Floats largest = S::broadcast(0.0f);
  typename S::Floats total = S::broadcast(0.0f);  // finite as long as every difference is
};

template <class S>
ATTAR_INLINE void add_difference(typename S::Floats value, typename S::Floats x, Worst<S>& worst) {
  const auto difference = S::abs(S::sub(value, x));
  worst.largest = S::max(difference, worst.largest);
  worst.total = S::add(worst.total, difference);
}

template <class S>
ATTAR_INLINE float found(const Worst<S>& worst) {
  const auto none = S::sub(worst.total, worst.total);  // 0 or NaN
  float total = 0, lanes[S::kWidth];
  S::store(lanes, none);
  for (int k = 0; k < S::kWidth; ++k) total += lanes[k];
  return S::largest(worst.largest) + total;
}

}  // namespace attar::kernels
