#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/response_loss/body.h"

namespace attar::kernels {

template void response_loss_row<Avx2>(const ResponseLoss&, std::int64_t, float*);

}  // namespace attar::kernels
