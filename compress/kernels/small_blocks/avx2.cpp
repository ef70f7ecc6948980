#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/small_blocks/body.h"

namespace attar::kernels {

template void small_blocks_range<Avx2>(const SmallBlocks&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
