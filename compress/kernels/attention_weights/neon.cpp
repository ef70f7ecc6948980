#include "compress/kernels/simd/neon.h"

#include "compress/kernels/attention_weights/body.h"

namespace attar::kernels {

template void weigh_attention<Neon>(const AttentionWeights&);

}  // namespace attar::kernels
