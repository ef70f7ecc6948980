#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/rms_norm/body.h"

namespace attar::kernels {

template void rms_norm_rows<Avx512>(const RmsNorm&, std::int64_t, std::int64_t);
template void add_rms_norm_rows<Avx512>(const AddRmsNorm&, std::int64_t, std::int64_t);
template void rms_norm_gradient_rows<Avx512>(const RmsNormGradient&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
