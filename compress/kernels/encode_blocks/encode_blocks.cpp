#include "compress/kernels/encode_blocks/encode_blocks.h"

namespace attar::kernels {

float encode_blocks(const EncodeBlocks& call, std::int64_t blocks, const Variant& variant) {
  return variant.encode_blocks(call, 0, blocks);
}

}  // namespace attar::kernels
