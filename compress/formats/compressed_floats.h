// Number formats in compressed-tensors (library 0.20). FP8, "float-quantized", weights alone or
// with "input_activations" of the same type, token by token:
//
//   X.weight         F8_E4M3 [O, I]   codes
//   X.weight_scale   F32 [O, 1]       read in F16 and BF16 too
//
// MXFP4, "mxfp4-pack-quantized":
//
//   X.weight_packed  U8 [O, I / 2]    the even column in the low nibble
//   X.weight_scale   U8 [O, I / 32]   E8M0: 2^(byte - 127); 255 is its NaN
//
// Not for NF4.
#pragma once

#include <span>
#include <string_view>

#include "compress/formats/compressed_tensors.h"
#include "compress/io/element_type.h"

namespace attar {

// A tensor of a layer: the end of its name, its type in the file and its shape.
struct FloatPart {
  std::string_view name;
  io::ElementType type;
  std::vector<std::int64_t> shape;
};
// Codes, then scales.
std::vector<FloatPart> float_parts(const QuantScheme& scheme, const WeightShape& shape);

// `packed` and `scale` as the file holds them, the codes of FP8 and E8M0 as bytes. Throws
// std::logic_error for a scale of MXFP4 that is no power of two.
PackedWeight pack_floats(const QuantizedWeight& weight);

// The inverse. Throws BadInput naming `where` when types or shapes disagree or a byte is a NaN.
QuantizedWeight unpack_floats(const PackedWeight& packed, const QuantScheme& scheme,
                              const WeightShape& shape, std::string_view where);

}  // namespace attar
