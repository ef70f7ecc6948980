#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/causal_attention/body.h"

namespace attar::kernels {

template void attend_task<Avx2>(const CausalAttention&, const AttentionTask&);

}  // namespace attar::kernels
