// All block types, once for every instruction set S.
#pragma once

#include "compress/kernels/encode_blocks/small.h"
#include "compress/kernels/encode_blocks/super.h"

namespace attar::kernels {

template <class S, GgmlBlock type>
float encode_range(const EncodeBlocks& call, std::int64_t begin, std::int64_t end) {
  constexpr GgmlBlockInfo info = info_of(type);
  const float* values = call.values + begin * info.elements;
  std::uint8_t* to = call.blocks + begin * info.bytes;
  Worst<S> worst;
  if constexpr (info.elements == kGgmlBlockElements && !info.table) {
    encode_small<S, type>(values, end - begin, to, worst);
  } else {
    encode_searched<S, type>(values, end - begin, to, worst);
  }
  return found(worst);
}

template <class S>
float encode_blocks_range(const EncodeBlocks& call, std::int64_t begin, std::int64_t end) {
  switch (call.type) {
    case GgmlBlock::q8_0:
      return encode_range<S, GgmlBlock::q8_0>(call, begin, end);
    case GgmlBlock::q4_0:
      return encode_range<S, GgmlBlock::q4_0>(call, begin, end);
    case GgmlBlock::q4_1:
      return encode_range<S, GgmlBlock::q4_1>(call, begin, end);
    case GgmlBlock::q5_0:
      return encode_range<S, GgmlBlock::q5_0>(call, begin, end);
    case GgmlBlock::q5_1:
      return encode_range<S, GgmlBlock::q5_1>(call, begin, end);
    case GgmlBlock::iq4_nl:
      return encode_range<S, GgmlBlock::iq4_nl>(call, begin, end);
    case GgmlBlock::q2_k:
      return encode_range<S, GgmlBlock::q2_k>(call, begin, end);
    case GgmlBlock::q3_k:
      return encode_range<S, GgmlBlock::q3_k>(call, begin, end);
    case GgmlBlock::q4_k:
      return encode_range<S, GgmlBlock::q4_k>(call, begin, end);
    case GgmlBlock::q5_k:
      return encode_range<S, GgmlBlock::q5_k>(call, begin, end);
    case GgmlBlock::q6_k:
      return encode_range<S, GgmlBlock::q6_k>(call, begin, end);
    case GgmlBlock::iq4_xs:
      return encode_range<S, GgmlBlock::iq4_xs>(call, begin, end);
  }
  return 0;
}

}  // namespace attar::kernels
