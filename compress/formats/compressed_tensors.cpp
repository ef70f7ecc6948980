#include "compress/formats/compressed_tensors.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "compress/core/errors.h"
#include "compress/formats/tensor_view.h"

namespace attar {
namespace {

constexpr std::int64_t kRowsAtOnce = 64;

std::int64_t words_of(std::int64_t codes, int bits) { return (codes * bits + 31) / 32; }

// Rows of codes as bit streams in words of 32 bits, least significant first. Bits 2, 4, 8, so no
// code crosses a byte. codes [N, K] uint8 -> [N, ceil(K * bits / 32)] int32.
at::Tensor pack_rows(const at::Tensor& codes, int bits) {
  const std::int64_t rows = codes.size(0), columns = codes.size(1), per_byte = 8 / bits;
  const std::int64_t words = words_of(columns, bits);
  const at::Tensor packed = at::zeros({rows, words}, at::kInt);
  auto* out = static_cast<std::uint8_t*>(packed.mutable_data_ptr());
  const auto* in = codes.const_data_ptr<std::uint8_t>();
  at::parallel_for(0, rows, kRowsAtOnce, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t k = 0; k < columns; ++k) {
        const int shifted = in[row * columns + k] << (bits * (k % per_byte));
        out[row * words * 4 + k / per_byte] |= static_cast<std::uint8_t>(shifted);
      }
    }
  });
  return packed;
}

// The inverse: [N, W] int32 -> [N, columns] uint8.
at::Tensor unpack_rows(const at::Tensor& packed, int bits, std::int64_t columns) {
  const std::int64_t rows = packed.size(0), words = packed.size(1), per_byte = 8 / bits;
  const at::Tensor codes = at::empty({rows, columns}, at::kByte);
  auto* out = codes.mutable_data_ptr<std::uint8_t>();
  const auto* in = static_cast<const std::uint8_t*>(packed.const_data_ptr());
  const int mask = (1 << bits) - 1;
  at::parallel_for(0, rows, kRowsAtOnce, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t k = 0; k < columns; ++k) {
        const int byte = in[row * words * 4 + k / per_byte];
        out[row * columns + k] =
            static_cast<std::uint8_t>((byte >> (bits * (k % per_byte))) & mask);
      }
    }
  });
  return codes;
}

bool is(const at::Tensor& tensor, at::IntArrayRef shape) {
  return tensor.defined() && tensor.sizes() == shape;
}

}  // namespace

std::optional<std::string> compressed_tensors_misfit(const QuantScheme& scheme,
                                                     const WeightShape& shape, bool two_bits) {
  std::ostringstream why;
  if (scheme.block == BlockGrid::kFp8 || scheme.block == BlockGrid::kMxfp4) return std::nullopt;
  if (scheme.block == BlockGrid::kNf4) {
    return "compressed-tensors has no NF4; export as huggingface, which holds its values as plain "
           "numbers, or use type: MXFP4";
  }
  if (scheme.bits == 2 && !two_bits) {
    why << "2 bits are read by few programs; set two_bits: true if yours does, or use 4";
  } else if (scheme.bits != 2 && scheme.bits != 4 && scheme.bits != 8) {
    why << "pack-quantized holds 4 or 8 bits, got " << scheme.bits
        << "; use 4 or 8, or export as huggingface";
  } else if (scheme.activation_bits != 0 && (scheme.bits != 8 || scheme.group_size != 0 ||
                                             scheme.zero_point != ZeroPoint::kSymmetric)) {
    why << "with rounded activations it holds 8 bits, symmetric, one scale a row; set bits: 8, "
           "group_size: 0, symmetric: true, or activations: 0";
  } else if (scheme.zero_point == ZeroPoint::kMinimum) {
    why << "pack-quantized has integer zeros, not real minima; use an integer zero or export as "
           "gguf";
  } else if (scheme.group_size != 0 && shape.in % scheme.group_size != 0) {
    why << "the group size must divide the input features, got " << scheme.group_size << " and "
        << shape.in << "; use a divisor or whole rows (group_size: 0)";
  } else {
    return std::nullopt;
  }
  return why.str();
}

at::ScalarType stored_scale_type(const QuantScheme& scheme) {
  return scheme.zero_point == ZeroPoint::kInteger ? at::kFloat : scheme.scale_type;
}

PackedWeight pack(const QuantizedWeight& weight) {
  const int bits = weight.scheme.bits;
  require(bits == 2 || bits == 4 || bits == 8, "compressed-tensors", "bits must be 2, 4 or 8, got ",
          bits);
  const at::Tensor codes = weight.codes.contiguous();
  PackedWeight packed;
  if (weight.scheme.activation_bits != 0) {
    packed.packed = (codes.to(at::kShort) - 128).to(at::kChar).contiguous();
    packed.scale = weight.scale.to(weight.scheme.scale_type).contiguous();
    return packed;
  }
  packed.packed = pack_rows(codes, bits);
  packed.scale = weight.scale.to(stored_scale_type(weight.scheme)).contiguous();
  packed.shape = at::tensor(at::ArrayRef<std::int64_t>{codes.size(0), codes.size(1)}, at::kLong);
  if (weight.scheme.zero_point == ZeroPoint::kInteger) {
    const at::Tensor zeros = weight.zero.to(at::kByte).t().contiguous();
    packed.zero_point = pack_rows(zeros, bits).t().contiguous();
  }
  return packed;
}

namespace {

QuantizedWeight unpack_signed(const PackedWeight& packed, const QuantScheme& scheme,
                              const WeightShape& shape, std::string_view where) {
  require(is(packed.packed, {shape.out, shape.in}) && packed.packed.scalar_type() == at::kChar,
          where, "weight must be I8 [", shape.out, ", ", shape.in,
          "] where activations are rounded");
  require(is(packed.scale, {shape.out, 1}) && packed.scale.is_floating_point(), where,
          "weight_scale must be floating [", shape.out, ", 1]");
  return {scheme,
          (packed.packed.to(at::kShort) + 128).to(at::kByte).contiguous(),
          packed.scale.to(at::kFloat).contiguous(),
          {}};
}

}  // namespace

std::int64_t packed_words(const QuantScheme& scheme, std::int64_t in) {
  return words_of(in, scheme.bits);
}

QuantizedWeight unpack(const PackedWeight& packed, const QuantScheme& scheme,
                       const WeightShape& shape, std::string_view where) {
  if (scheme.activation_bits != 0) return unpack_signed(packed, scheme, shape, where);
  require(is(packed.shape, {2}) && packed.shape.scalar_type() == at::kLong, where,
          "weight_shape must be two I64");
  const auto [out, in] = shape;
  const auto* stated = packed.shape.const_data_ptr<std::int64_t>();
  require(stated[0] == out && stated[1] == in, where, "weight_shape must be [", out, ", ", in,
          "], got [", stated[0], ", ", stated[1], "]");
  require(scheme.group_size == 0 || in % scheme.group_size == 0, where, "groups of ",
          scheme.group_size, " do not divide ", in,
          " input features; quantization_config belongs to another model");
  const std::int64_t groups = scheme.groups(in);
  const std::int64_t words = packed_words(scheme, in);
  require(is(packed.packed, {out, words}) && packed.packed.scalar_type() == at::kInt, where,
          "weight_packed must be I32 [", out, ", ", words, "]");
  require(is(packed.scale, {out, groups}) && packed.scale.is_floating_point(), where,
          "weight_scale must be floating [", out, ", ", groups, "]");
  QuantizedWeight weight{scheme,
                         unpack_rows(packed.packed.contiguous(), scheme.bits, in),
                         packed.scale.to(at::kFloat).contiguous(),
                         {}};
  const at::Tensor rounded = weight.scale.to(scheme.scale_type).to(at::kFloat);
  require(at::allclose(rounded, weight.scale, 0, 0, /*equal_nan=*/true), where,
          "weight_scale holds values beyond ", long_name(scheme.scale_type),
          ", which quantization_config names as their type; correct or remove its scale_type");
  const bool asymmetric = scheme.zero_point == ZeroPoint::kInteger;
  require(packed.zero_point.defined() == asymmetric, where, "weight_zero_point ",
          asymmetric ? "is missing, but the scheme is asymmetric"
                     : "does not belong to a symmetric scheme");
  if (asymmetric) {
    const std::int64_t zero_words = words_of(out, scheme.bits);
    require(
        is(packed.zero_point, {zero_words, groups}) && packed.zero_point.scalar_type() == at::kInt,
        where, "weight_zero_point must be I32 [", zero_words, ", ", groups, "]");
    weight.zero = unpack_rows(packed.zero_point.t().contiguous(), scheme.bits, out)
                      .t()
                      .to(at::kFloat)
                      .contiguous();
  }
  return weight;
}

}  // namespace attar
