// Values into ggml's blocks, and how far they moved (ggml_blocks.h has the promises).
#pragma once

#include <cstdint>

#include "compress/kernels/ggml_blocks/ggml_blocks.h"
#include "compress/kernels/variants.h"

namespace attar::kernels {

struct EncodeBlocks {
  GgmlBlock type;
  const float* values;   // [blocks, elements]
  std::uint8_t* blocks;  // [blocks, bytes]
};

// One thread. All variants give the same bytes and the same number: the largest |value of the
// block - value|, or something not finite when one of them is not (or their sum overflows).
float encode_blocks(const EncodeBlocks& call, std::int64_t blocks,
                    const Variant& variant = active_variant());

}  // namespace attar::kernels
