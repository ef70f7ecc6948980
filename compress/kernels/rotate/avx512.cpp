#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/rotate/body.h"

namespace attar::kernels {

template void rotate_rows<Avx512>(const Rotate&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
