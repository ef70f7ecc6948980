#include "compress/kernels/simd/neon.h"

#include "compress/kernels/gated_activation/body.h"

namespace attar::kernels {

template void gated_activation_rows<Neon>(const GatedActivation&, std::int64_t, std::int64_t);
template void gated_activation_gradient_rows<Neon>(const GatedActivationGradient&, std::int64_t,
                                                   std::int64_t);

}  // namespace attar::kernels
