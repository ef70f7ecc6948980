#include "compress/kernels/simd/neon.h"

#include "compress/kernels/convert/body.h"

namespace attar::kernels {

template void f16_to_f32_all<Neon>(const void*, float*, std::int64_t);
template void bf16_to_f32_all<Neon>(const void*, float*, std::int64_t);
template void f32_to_f16_all<Neon>(const float*, void*, std::int64_t);
template void f32_to_bf16_all<Neon>(const float*, void*, std::int64_t);

}  // namespace attar::kernels
