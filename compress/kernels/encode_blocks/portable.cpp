#include "compress/kernels/simd/portable.h"

#include "compress/kernels/encode_blocks/body.h"

namespace attar::kernels {

template float encode_blocks_range<Portable>(const EncodeBlocks&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
