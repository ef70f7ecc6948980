#include "compress/kernels/simd/neon.h"

#include "compress/kernels/block_search/body.h"

namespace attar::kernels {

template void block_search_groups<Neon>(const BlockSearch&, std::int64_t, std::int64_t);
template void group_prices_groups<Neon>(const GroupPrices&, std::int64_t, std::int64_t);

}  // namespace attar::kernels
