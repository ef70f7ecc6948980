#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/dequantize_affine/body.h"

namespace attar::kernels {

template void dequantize_affine_rows<Avx2>(const AffineCodes&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
