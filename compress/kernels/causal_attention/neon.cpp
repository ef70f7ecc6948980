#include "compress/kernels/simd/neon.h"

#include "compress/kernels/causal_attention/body.h"

namespace attar::kernels {

template void attend_task<Neon>(const CausalAttention&, const AttentionTask&);

}  // namespace attar::kernels
