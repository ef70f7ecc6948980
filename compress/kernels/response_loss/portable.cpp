#include "compress/kernels/simd/portable.h"

#include "compress/kernels/response_loss/body.h"

namespace attar::kernels {

template void response_loss_row<Portable>(const ResponseLoss&, std::int64_t, float*);

}  // namespace attar::kernels
