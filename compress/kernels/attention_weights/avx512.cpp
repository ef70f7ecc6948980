#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/attention_weights/body.h"

namespace attar::kernels {

template void weigh_attention<Avx512>(const AttentionWeights&);

}  // namespace attar::kernels
