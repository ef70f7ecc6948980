#include "compress/kernels/simd/portable.h"

#include "compress/kernels/attention_weights/body.h"

namespace attar::kernels {

template void weigh_attention<Portable>(const AttentionWeights&);

}  // namespace attar::kernels
