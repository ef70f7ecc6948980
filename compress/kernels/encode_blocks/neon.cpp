#include "compress/kernels/simd/neon.h"

#include "compress/kernels/encode_blocks/body.h"

namespace attar::kernels {

template float encode_blocks_range<Neon>(const EncodeBlocks&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
