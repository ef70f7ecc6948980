#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/causal_attention/body.h"

namespace attar::kernels {

template void attend_task<Avx512>(const CausalAttention&, const AttentionTask&);

}  // namespace attar::kernels
