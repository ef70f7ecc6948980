// compressed-tensors: integer weights of Linear modules. "pack-quantized":
//
//   X.weight_packed      I32 [O, I * bits / 32]   codes, 32 / bits a word, least significant first
//   X.weight_scale       F16 | BF16 | F32 [O, G]; F32 where the grid is asymmetric
//   X.weight_shape       I64 [2] = O, I
//   X.weight_zero_point  I32 [O * bits / 32, G]   packed along O; asymmetric only
//
// Codes and zeros are stored without sign, as in QuantizedWeight. Bits 4 and 8 (2 on request),
// kSymmetric or kInteger, groups that divide the columns or whole rows. "int-quantized" (W8A8:
// activation_bits 8, with 8 bits, kSymmetric, whole rows; "input_activations" in the
// configuration):
//
//   X.weight             I8 [O, I]                codes, signed
//   X.weight_scale       F16 | BF16 | F32 [O, 1]
//
// FP8 and MXFP4: compressed_floats.h.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "compress/core/weight.h"

namespace attar {

// Why a grid cannot be stored for a layer of `shape`, with the remedy; empty when it can.
std::optional<std::string> compressed_tensors_misfit(const QuantScheme& scheme,
                                                     const WeightShape& shape, bool two_bits);

// The type of weight_scale in the file. transformers (5.23) multiplies codes of an asymmetric grid
// by the scale in the scale's own type, so a weight of 4 bits and a scale of 11 would lose bits
// there. Stored as float32 the same scales give everybody the same weights, for 16 bits a group.
// Symmetric scales stay as scheme.scale_type: they are widened before that product.
at::ScalarType stored_scale_type(const QuantScheme& scheme);

struct PackedWeight {
  at::Tensor packed;      // [O, I * bits / 32] int32; of W8A8 [O, I] int8
  at::Tensor scale;       // [O, G] of stored_scale_type
  at::Tensor shape;       // [2] int64; undefined of W8A8
  at::Tensor zero_point;  // [ceil(O * bits / 32), G] int32, undefined when symmetric
};

PackedWeight pack(const QuantizedWeight& weight);

// Words of 32 bits that a row of `in` codes takes.
std::int64_t packed_words(const QuantScheme& scheme, std::int64_t in);

// The inverse. Throws BadInput naming `where` when shapes or types disagree with each other or with
// `shape`, or when a scale is not of scheme.scale_type.
QuantizedWeight unpack(const PackedWeight& packed, const QuantScheme& scheme,
                       const WeightShape& shape, std::string_view where);

bool any_asymmetric(const std::map<std::string, QuantScheme>& layers);
bool any_mxfp4(const std::map<std::string, QuantScheme>& layers);

// quantization_config of config.json: one group with target "Linear" when all schemes are equal,
// else a group a scheme with its modules named. `layers` maps module paths to schemes, `dense` are
// the Linear modules stored as plain values.
nlohmann::ordered_json quantization_config(const std::map<std::string, QuantScheme>& layers,
                                           const std::vector<std::string>& dense);

// Reads it back: the scheme of a module, or nothing when it is in `ignore`. `scale_type` is what
// float32 scales were rounded to (key "scale_type", written by attar; float32 without it); where a
// file holds narrower ones the caller sets their type. Throws BadInput for what attar does not
// read.
using SchemeOf = std::function<std::optional<QuantScheme>(std::string_view module)>;
SchemeOf schemes_from_config(const nlohmann::json& quantization_config, std::string_view where);

}  // namespace attar
