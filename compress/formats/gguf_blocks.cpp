#include "compress/formats/gguf_blocks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <atomic>
#include <cmath>
#include <cstring>

#include "compress/core/errors.h"
#include "compress/kernels/convert/convert.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace attar {
namespace {

using io::GgmlType;
using kernels::GgmlBlock;
constexpr std::int64_t kBlock = kernels::kGgmlBlockElements;

std::optional<GgmlBlock> block_of(GgmlType type) {
  if (type == GgmlType::q8_0) return GgmlBlock::q8_0;
  if (type == GgmlType::q4_0) return GgmlBlock::q4_0;
  if (type == GgmlType::q4_1) return GgmlBlock::q4_1;
  return std::nullopt;
}

bool is_half(float value) {
  return std::isfinite(value) && kernels::f16_value(kernels::f16_bits(value)) == value;
}

// How codes of a grid become codes of a block: value = scale * (code - zero) = d * (code' -
// offset).
struct Recoder {
  GgmlType type;
  QuantScheme scheme;

  // The zero that a kSymmetric or kInteger grid subtracts.
  int zero(float stored) const {
    return scheme.zero_point == ZeroPoint::kSymmetric ? scheme.levels() / 2
                                                      : static_cast<int>(stored);
  }
  int code(int code, float stored_zero) const {
    if (type == GgmlType::q4_1) return code;
    return code - zero(stored_zero) + (type == GgmlType::q8_0 ? 128 : 8);
  }
  int highest() const { return type == GgmlType::q8_0 ? 255 : 15; }
  float minimum(float scale, float stored_zero) const {
    if (scheme.zero_point == ZeroPoint::kMinimum) return stored_zero;
    return -scale * static_cast<float>(zero(stored_zero));
  }
};

// Calls body(row) for every row; false as soon as one row says so.
template <class Body>
bool all_rows(std::int64_t rows, const Body& body) {
  std::atomic<bool> ok = true;
  at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end && ok; ++row) {
      if (!body(row)) ok = false;
    }
  });
  return ok;
}

std::int64_t row_bytes(GgmlType type, std::int64_t columns) {
  const io::GgmlTypeInfo& info = io::ggml_type_info(type);
  require(columns % info.elements == 0, "gguf", info.name, " needs rows of a multiple of ",
          info.elements, " values, got ", columns);
  return columns / info.elements * info.bytes;
}

}  // namespace

std::optional<Fit> fit(GgmlType type, const QuantScheme& scheme, std::int64_t columns) {
  const std::int64_t group = scheme.group_size == 0 ? columns : scheme.group_size;
  if (!block_of(type) || columns % kBlock != 0 || group % kBlock != 0 ||
      scheme.scale_type != at::kHalf) {
    return std::nullopt;
  }
  if (scheme.zero_point == ZeroPoint::kMinimum) {
    return type == GgmlType::q4_1 && scheme.bits <= 4 ? std::optional(Fit::kExact) : std::nullopt;
  }
  const bool symmetric = scheme.zero_point == ZeroPoint::kSymmetric;
  switch (type) {
    case GgmlType::q4_0:
      return symmetric && scheme.bits <= 4 ? std::optional(Fit::kExact) : std::nullopt;
    case GgmlType::q4_1:
      return scheme.bits <= 4 ? std::optional(Fit::kRoundedMinimum) : std::nullopt;
    default:  // Q8_0: differences of codes of up to 7 bits lie within [-127, 127]
      return symmetric || scheme.bits <= 7 ? std::optional(Fit::kExact) : std::nullopt;
  }
}

std::optional<GgmlType> smallest_fit(const QuantScheme& scheme, std::int64_t columns) {
  for (const GgmlType type : {GgmlType::q4_0, GgmlType::q4_1, GgmlType::q8_0}) {
    if (fit(type, scheme, columns)) return type;
  }
  return std::nullopt;
}

std::optional<std::vector<std::byte>> keep_codes(GgmlType type, const QuantizedWeight& weight) {
  const std::int64_t rows = weight.codes.size(0), columns = weight.codes.size(1);
  const std::optional<GgmlBlock> block = block_of(type);
  const bool minimum = weight.scheme.zero_point == ZeroPoint::kMinimum;
  const std::int64_t group = weight.scheme.group_size == 0 ? columns : weight.scheme.group_size;
  if (!block || columns % kBlock != 0 || group % kBlock != 0 ||
      (minimum && type != GgmlType::q4_1)) {
    return std::nullopt;
  }
  const Recoder recoder{type, weight.scheme};
  const std::int64_t groups = weight.scheme.groups(columns), blocks = columns / kBlock;
  const at::Tensor codes = weight.codes.contiguous(), scales = weight.scale.contiguous();
  const at::Tensor zeros = weight.zero.defined() ? weight.zero.contiguous() : scales;
  const auto* code = codes.const_data_ptr<std::uint8_t>();
  const auto* scale = scales.const_data_ptr<float>();
  const auto* zero = zeros.const_data_ptr<float>();
  const std::int64_t bytes = row_bytes(type, columns);
  std::vector<std::byte> packed(static_cast<std::size_t>(rows * bytes));

  const bool kept = all_rows(rows, [&](std::int64_t row) {
    std::vector<std::uint8_t> recoded(static_cast<std::size_t>(columns));
    std::vector<float> d(static_cast<std::size_t>(blocks)), m(static_cast<std::size_t>(blocks));
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t g = row * groups + b * kBlock / group;
      d[b] = scale[g];
      m[b] = recoder.minimum(scale[g], zero[g]);
      if (!is_half(d[b]) || !std::isfinite(kernels::f16_value(kernels::f16_bits(m[b])))) {
        return false;
      }
      if (minimum && !is_half(m[b])) return false;
      for (std::int64_t k = b * kBlock; k < (b + 1) * kBlock; ++k) {
        const int value = recoder.code(code[row * columns + k], zero[g]);
        if (value < 0 || value > recoder.highest()) return false;
        recoded[k] = static_cast<std::uint8_t>(value);
      }
    }
    kernels::ggml_pack(*block, recoded.data(), d.data(), m.data(), columns,
                       packed.data() + row * bytes);
    return true;
  });
  if (!kept) return std::nullopt;
  return packed;
}

std::vector<std::byte> encode(GgmlType type, const at::Tensor& values) {
  TORCH_INTERNAL_ASSERT(values.scalar_type() == at::kFloat && values.dim() == 2);
  const at::Tensor plain = values.contiguous();
  const std::int64_t rows = plain.size(0), columns = plain.size(1);
  const std::int64_t bytes = row_bytes(type, columns);
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows * bytes));
  const auto* in = plain.const_data_ptr<float>();
  const std::optional<GgmlBlock> block = block_of(type);
  all_rows(rows, [&](std::int64_t row) {
    const float* from = in + row * columns;
    std::byte* to = encoded.data() + row * bytes;
    if (block) {
      kernels::ggml_quantize(*block, from, columns, to);
    } else if (type == GgmlType::f16) {
      kernels::f32_to_f16(from, to, columns);
    } else if (type == GgmlType::bf16) {
      kernels::f32_to_bf16(from, to, columns);
    } else {
      require(type == GgmlType::f32, "gguf", "cannot write ", io::ggml_type_info(type).name);
      std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }
    return true;
  });
  return encoded;
}

at::Tensor decode(GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                  std::int64_t in) {
  const std::int64_t stride = row_bytes(type, in);
  require(bytes.size() == static_cast<std::size_t>(out * stride), "gguf", "a ",
          io::ggml_type_info(type).name, " tensor of ", out, " rows of ", in, " needs ",
          out * stride, " bytes, got ", bytes.size());
  const at::Tensor values = at::empty({out, in}, at::kFloat);
  auto* to = values.mutable_data_ptr<float>();
  const std::optional<GgmlBlock> block = block_of(type);
  all_rows(out, [&](std::int64_t row) {
    const std::byte* from = bytes.data() + row * stride;
    if (block) {
      kernels::ggml_dequantize(*block, from, in, to + row * in);
    } else if (type == GgmlType::f16) {
      kernels::f16_to_f32(from, to + row * in, in);
    } else if (type == GgmlType::bf16) {
      kernels::bf16_to_f32(from, to + row * in, in);
    } else {
      require(type == GgmlType::f32, "gguf", "cannot read ", io::ggml_type_info(type).name);
      std::memcpy(to + row * in, from, static_cast<std::size_t>(stride));
    }
    return true;
  });
  return values;
}

QuantScheme scheme_of(GgmlType type) {
  QuantScheme scheme;
  scheme.bits = type == GgmlType::q8_0 ? 8 : 4;
  scheme.group_size = kBlock;
  scheme.zero_point = type == GgmlType::q4_1 ? ZeroPoint::kMinimum : ZeroPoint::kSymmetric;
  scheme.scale_type = at::kHalf;
  return scheme;
}

QuantizedWeight unpack_blocks(GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                              std::int64_t in) {
  const std::int64_t stride = row_bytes(type, in), blocks = in / kBlock;
  require(block_of(type) && bytes.size() == static_cast<std::size_t>(out * stride), "gguf",
          "cannot unpack ", io::ggml_type_info(type).name);
  const std::int64_t header = type == GgmlType::q4_1 ? 4 : 2, block_bytes = stride / blocks;
  QuantizedWeight weight{
      scheme_of(type), at::empty({out, in}, at::kByte), at::empty({out, blocks}, at::kFloat), {}};
  if (type == GgmlType::q4_1) weight.zero = at::empty({out, blocks}, at::kFloat);
  auto* code = weight.codes.mutable_data_ptr<std::uint8_t>();
  auto* scale = weight.scale.mutable_data_ptr<float>();
  auto* zero = weight.zero.defined() ? weight.zero.mutable_data_ptr<float>() : nullptr;
  const auto half = [](const std::byte* at) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, at, sizeof bits);
    return kernels::f16_value(bits);
  };
  all_rows(out, [&](std::int64_t row) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::byte* from = bytes.data() + row * stride + b * block_bytes;
      scale[row * blocks + b] = half(from);
      if (zero != nullptr) zero[row * blocks + b] = half(from + 2);
      const auto* q = reinterpret_cast<const std::uint8_t*>(from + header);
      std::uint8_t* to = code + row * in + b * kBlock;
      for (std::int64_t e = 0; e < kBlock; ++e) {
        to[e] = type == GgmlType::q8_0
                    ? static_cast<std::uint8_t>(q[e] ^ 0x80)
                    : static_cast<std::uint8_t>((q[e % 16] >> (e < 16 ? 0 : 4)) & 15);
      }
    }
    return true;
  });
  return weight;
}

}  // namespace attar
