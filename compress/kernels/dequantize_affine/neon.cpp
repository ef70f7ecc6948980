#include "compress/kernels/simd/neon.h"

#include "compress/kernels/dequantize_affine/body.h"

namespace attar::kernels {

template void dequantize_affine_rows<Neon>(const AffineCodes&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
