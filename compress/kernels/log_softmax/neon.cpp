#include "compress/kernels/simd/neon.h"

#include "compress/kernels/log_softmax/body.h"

namespace attar::kernels {

template void log_softmax_stats_rows<Neon>(const LogSoftmaxStats&, std::int64_t, std::int64_t);
template void divergence_rows<Neon>(const Divergence&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
