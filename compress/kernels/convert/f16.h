// One IEEE half at a time, by integer arithmetic alone.
#pragma once

#include <cstdint>

namespace attar::kernels {

// The same bits as the loops of convert.h.
float f16_value(std::uint16_t half);
std::uint16_t f16_bits(float value);

}  // namespace attar::kernels
