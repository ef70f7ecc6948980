#include "compress/formats/compressed_floats.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <stdexcept>

#include "compress/core/errors.h"

namespace attar {
namespace {

constexpr int kE8m0Bias = 127, kE8m0Nan = 255;

at::Tensor pack_nibbles(const at::Tensor& codes) {
  const at::Tensor pairs = codes.contiguous().view({codes.size(0), codes.size(1) / 2, 2});
  return (pairs.select(2, 0) + pairs.select(2, 1) * 16).contiguous();
}

at::Tensor unpack_nibbles(const at::Tensor& packed) {
  const at::Tensor codes = at::empty({packed.size(0), packed.size(1), 2}, at::kByte);
  codes.select(2, 0).copy_(packed.remainder(16));
  codes.select(2, 1).copy_(packed.div(16, "floor"));
  return codes.view({packed.size(0), 2 * packed.size(1)});
}

at::Tensor exponents_of(const at::Tensor& scale) {
  const at::Tensor plain = scale.contiguous();
  at::Tensor bytes = at::empty(scale.sizes(), at::kByte);
  const float* from = plain.const_data_ptr<float>();
  auto* to = bytes.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < plain.numel(); ++i) {
    int exponent = 0;
    if (std::frexp(from[i], &exponent) != 0.5f) {
      throw std::logic_error("compressed-tensors: a scale of MXFP4 is no power of two");
    }
    to[i] = static_cast<std::uint8_t>(exponent - 1 + kE8m0Bias);
  }
  return bytes;
}

at::Tensor powers_of(const at::Tensor& bytes, std::string_view where) {
  const at::Tensor plain = bytes.contiguous();
  at::Tensor scale = at::empty(bytes.sizes(), at::kFloat);
  const auto* from = plain.const_data_ptr<std::uint8_t>();
  float* to = scale.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < plain.numel(); ++i) {
    require(from[i] != kE8m0Nan, where, "weight_scale holds a NaN (byte 255) at ", i);
    to[i] = std::ldexp(1.0f, from[i] - kE8m0Bias);
  }
  return scale;
}

}  // namespace

std::vector<FloatPart> float_parts(const QuantScheme& scheme, const WeightShape& shape) {
  if (scheme.block == BlockGrid::kFp8) {
    return {{".weight", io::ElementType::f8_e4m3, {shape.out, shape.in}},
            {".weight_scale", io::ElementType::f32, {shape.out, 1}}};
  }
  if (scheme.block != BlockGrid::kMxfp4) {
    throw std::logic_error("compressed-tensors: no tensors for " +
                           std::string(to_string(scheme.block)));
  }
  return {{".weight_packed", io::ElementType::u8, {shape.out, shape.in / 2}},
          {".weight_scale", io::ElementType::u8, {shape.out, scheme.groups(shape.in)}}};
}

PackedWeight pack_floats(const QuantizedWeight& weight) {
  if (weight.scheme.block == BlockGrid::kFp8) {
    return {weight.codes.contiguous(), weight.scale.contiguous(), {}, {}};
  }
  return {pack_nibbles(weight.codes), exponents_of(weight.scale), {}, {}};
}

QuantizedWeight unpack_floats(const PackedWeight& packed, const QuantScheme& scheme,
                              const WeightShape& shape, std::string_view where) {
  const std::vector<FloatPart> parts = float_parts(scheme, shape);
  const bool fp8 = scheme.block == BlockGrid::kFp8;
  require(packed.packed.scalar_type() == at::kByte && packed.packed.sizes() == parts[0].shape,
          where, parts[0].name.substr(1), " must be ", io::safetensors_name(parts[0].type), " ",
          at::IntArrayRef(parts[0].shape), ", got ", packed.packed.sizes());
  require((fp8 ? packed.scale.is_floating_point() : packed.scale.scalar_type() == at::kByte) &&
              packed.scale.sizes() == parts[1].shape,
          where, "weight_scale must be ", fp8 ? "floating" : "U8", " ",
          at::IntArrayRef(parts[1].shape), ", got ", packed.scale.sizes());
  QuantizedWeight weight{
      scheme,
      fp8 ? packed.packed.contiguous() : unpack_nibbles(packed.packed),
      fp8 ? packed.scale.to(at::kFloat).contiguous() : powers_of(packed.scale, where),
      {}};
  check(weight, where);
  return weight;
}

}  // namespace attar
