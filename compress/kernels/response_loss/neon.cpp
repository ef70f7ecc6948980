#include "compress/kernels/simd/neon.h"

#include "compress/kernels/response_loss/body.h"

namespace attar::kernels {

template void response_loss_row<Neon>(const ResponseLoss&, std::int64_t, float*);

}  // namespace attar::kernels
