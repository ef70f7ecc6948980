#include "compress/kernels/simd/neon.h"

#include "compress/kernels/rotate/body.h"

namespace attar::kernels {

template void rotate_rows<Neon>(const Rotate&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
