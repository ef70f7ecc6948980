#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/block_search/body.h"

namespace attar::kernels {

template void block_search_groups<Avx2>(const BlockSearch&, std::int64_t, std::int64_t);
template void group_prices_groups<Avx2>(const GroupPrices&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
