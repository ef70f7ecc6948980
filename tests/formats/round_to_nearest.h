// The plainest quantizer, so that these tests need none of the real ones.
#pragma once

#include "compress/core/weight.h"

namespace attar::testing {

// Min-max rounding of [O, I] float32; the group size must divide I. Scales and minima are rounded
// to the scheme's scale type first.
QuantizedWeight round_to_nearest(const at::Tensor& values, const QuantScheme& scheme);

}  // namespace attar::testing
