#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/gated_activation/body.h"

namespace attar::kernels {

template void gated_activation_rows<Avx512>(const GatedActivation&, std::int64_t, std::int64_t);
template void gated_activation_gradient_rows<Avx512>(const GatedActivationGradient&, std::int64_t,
                                                     std::int64_t);

}  // namespace attar::kernels
