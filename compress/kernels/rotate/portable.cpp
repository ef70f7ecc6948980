#include "compress/kernels/simd/portable.h"

#include "compress/kernels/rotate/body.h"

namespace attar::kernels {

template void rotate_rows<Portable>(const Rotate&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
