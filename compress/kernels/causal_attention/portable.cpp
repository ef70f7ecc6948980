#include "compress/kernels/simd/portable.h"

#include "compress/kernels/causal_attention/body.h"

namespace attar::kernels {

template void attend_task<Portable>(const CausalAttention&, const AttentionTask&);

}  // namespace attar::kernels
