#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/encode_blocks/body.h"

namespace attar::kernels {

template float encode_blocks_range<Avx2>(const EncodeBlocks&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
