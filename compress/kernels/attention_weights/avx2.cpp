#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/attention_weights/body.h"

namespace attar::kernels {

template void weigh_attention<Avx2>(const AttentionWeights&);

}  // namespace attar::kernels
