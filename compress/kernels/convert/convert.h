// Between fp32 and the two 16-bit formats. All variants give the same bits.
#pragma once

#include <cstdint>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/variants.h"

namespace attar::kernels {

// `count` little-endian elements; pointers need no alignment; source and out do not overlap.
// Narrowing rounds to nearest, ties to even; what does not fit becomes infinite; subnormals are
// kept. A NaN stays a NaN of the same sign and becomes quiet (f16 <-> f32 and f32 -> bf16);
// bf16 -> f32 keeps every bit.
void f16_to_f32(const void* source, float* out, std::int64_t count,
                const Variant& variant = active_variant());
void bf16_to_f32(const void* source, float* out, std::int64_t count,
                 const Variant& variant = active_variant());
void f32_to_f16(const float* source, void* out, std::int64_t count,
                const Variant& variant = active_variant());
void f32_to_bf16(const float* source, void* out, std::int64_t count,
                 const Variant& variant = active_variant());

}  // namespace attar::kernels
