#include "compress/kernels/simd/portable.h"

#include "compress/kernels/gated_activation/body.h"

namespace attar::kernels {

template void gated_activation_rows<Portable>(const GatedActivation&, std::int64_t, std::int64_t);
template void gated_activation_gradient_rows<Portable>(const GatedActivationGradient&, std::int64_t,
                                                       std::int64_t);

}  // namespace attar::kernels
