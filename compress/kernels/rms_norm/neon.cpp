#include "compress/kernels/simd/neon.h"

#include "compress/kernels/rms_norm/body.h"

namespace attar::kernels {

template void rms_norm_rows<Neon>(const RmsNorm&, std::int64_t, std::int64_t);
template void add_rms_norm_rows<Neon>(const AddRmsNorm&, std::int64_t, std::int64_t);
template void rms_norm_gradient_rows<Neon>(const RmsNormGradient&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
