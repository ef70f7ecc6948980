#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/rms_norm/body.h"

namespace attar::kernels {

template void rms_norm_rows<Avx2>(const RmsNorm&, std::int64_t, std::int64_t);
template void add_rms_norm_rows<Avx2>(const AddRmsNorm&, std::int64_t, std::int64_t);
template void rms_norm_gradient_rows<Avx2>(const RmsNormGradient&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
