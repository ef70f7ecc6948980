#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/convert/body.h"

namespace attar::kernels {

template void f16_to_f32_all<Avx512>(const void*, float*, std::int64_t);
template void bf16_to_f32_all<Avx512>(const void*, float*, std::int64_t);
template void f32_to_f16_all<Avx512>(const float*, void*, std::int64_t);
template void f32_to_bf16_all<Avx512>(const float*, void*, std::int64_t);

}  // namespace attar::kernels
