#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/log_softmax/body.h"

namespace attar::kernels {

template void log_softmax_stats_rows<Avx512>(const LogSoftmaxStats&, std::int64_t, std::int64_t);
template void divergence_rows<Avx512>(const Divergence&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
