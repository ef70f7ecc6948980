#include "compress/kernels/small_blocks/small_blocks.h"

namespace attar::kernels {

void small_blocks(const SmallBlocks& call, std::int64_t blocks, const Variant& variant) {
  variant.small_blocks(call, 0, blocks);
}

}  // namespace attar::kernels
