// Codes to values, once for every instruction set S.
#pragma once

#include "compress/kernels/dequantize_affine/dequantize_affine.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

template <class S, Offset meaning>
ATTAR_INLINE typename S::Floats affine(const std::uint8_t* codes, typename S::Floats scale,
                                       typename S::Floats offset) {
  const auto code = S::from_bytes(codes);
  if constexpr (meaning == Offset::zero) return S::mul(scale, S::sub(code, offset));
  return S::add(S::mul(scale, code), offset);
}

template <class S, Offset meaning>
ATTAR_INLINE void dequantize_group(const std::uint8_t* codes, float scale, float offset,
                                   std::int64_t count, float* out) {
  constexpr int W = S::kWidth;
  const auto scales = S::broadcast(scale), offsets = S::broadcast(offset);
  std::int64_t c = 0;
  for (; c + W <= count; c += W) {
    S::store(out + c, affine<S, meaning>(codes + c, scales, offsets));
  }
  if (c < count) {
    std::uint8_t last[W] = {};
    __builtin_memcpy(last, codes + c, static_cast<std::size_t>(count - c));
    S::store_first(out + c, affine<S, meaning>(last, scales, offsets), count - c);
  }
}

template <class S, Offset meaning>
ATTAR_INLINE void dequantize_rows(const AffineCodes& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t groups = (call.columns + call.group_size - 1) / call.group_size;
  for (std::int64_t r = begin; r < end; ++r) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t c = g * call.group_size;
      const std::int64_t left = call.columns - c;
      const std::int64_t at = r * call.columns + c;
      dequantize_group<S, meaning>(call.codes + at, call.scale[r * groups + g],
                                   call.offset[r * groups + g],
                                   left < call.group_size ? left : call.group_size, call.out + at);
    }
  }
}

template <class S>
void dequantize_affine_rows(const AffineCodes& call, std::int64_t begin, std::int64_t end) {
  if (call.meaning == Offset::zero) {
    dequantize_rows<S, Offset::zero>(call, begin, end);
  } else {
    dequantize_rows<S, Offset::minimum>(call, begin, end);
  }
}

}  // namespace attar::kernels
