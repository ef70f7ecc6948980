#include "compress/formats/gguf_blocks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "compress/core/block_grid.h"
#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/convert/convert.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace attar {
namespace {

using io::GgmlType;
using kernels::GgmlBlock;
using kernels::GgmlBlockInfo;
constexpr std::int64_t kBlock = kernels::kGgmlBlockElements;

constexpr std::pair<GgmlType, GgmlBlock> kBlocks[] = {
    {GgmlType::q8_0, GgmlBlock::q8_0}, {GgmlType::q4_0, GgmlBlock::q4_0},
    {GgmlType::q4_1, GgmlBlock::q4_1}, {GgmlType::q5_0, GgmlBlock::q5_0},
    {GgmlType::q5_1, GgmlBlock::q5_1}, {GgmlType::iq4_nl, GgmlBlock::iq4_nl},
    {GgmlType::q2_k, GgmlBlock::q2_k}, {GgmlType::q3_k, GgmlBlock::q3_k},
    {GgmlType::q4_k, GgmlBlock::q4_k}, {GgmlType::q5_k, GgmlBlock::q5_k},
    {GgmlType::q6_k, GgmlBlock::q6_k}, {GgmlType::iq4_xs, GgmlBlock::iq4_xs}};

// The grid that only this type holds; kNone for the others.
BlockGrid block_grid_of(GgmlType type) {
  for (int i = 1; i <= static_cast<int>(BlockGrid::kIq4Xs); ++i) {
    const auto grid = static_cast<BlockGrid>(i);
    if (to_string(grid) == io::ggml_type_info(type).name) return grid;
  }
  return BlockGrid::kNone;
}

bool is_half(float value) {
  return std::isfinite(value) && kernels::f16_value(kernels::f16_bits(value)) == value;
}

// How codes of a grid become codes of a block: value = scale * (code - zero) = d * (code' -
// offset).
struct Recoder {
  const GgmlBlockInfo& info;
  QuantScheme scheme;

  // The zero that a kSymmetric or kInteger grid subtracts.
  int zero(float stored) const {
    return scheme.zero_point == ZeroPoint::kSymmetric ? scheme.levels() / 2
                                                      : static_cast<int>(stored);
  }
  // Outside of [0, info.top] when the type has no such code.
  int code(int code, float stored_zero) const {
    if (info.minimum) return code;
    if (!info.table) return code - zero(stored_zero) + info.middle;
    const auto point = static_cast<std::int8_t>(code - 128);
    const int index = kernels::nearest_of_table16(point);
    return kernels::kTable16[index] == point ? index : -1;
  }
  float minimum(float scale, float stored_zero) const {
    if (scheme.zero_point == ZeroPoint::kMinimum) return stored_zero;
    return -scale * static_cast<float>(zero(stored_zero));
  }
};

// One row in the parts of a block type.
struct RowParts {
  explicit RowParts(const GgmlBlockInfo& info, std::int64_t columns)
      : codes(static_cast<std::size_t>(columns)),
        d(static_cast<std::size_t>(columns / info.elements)),
        m(d.size()),
        a(static_cast<std::size_t>(columns / info.group)),
        b(a.size()) {}
  kernels::GgmlParts pointers() { return {codes.data(), d.data(), m.data(), a.data(), b.data()}; }

  std::vector<std::uint8_t> codes;
  std::vector<float> d, m;
  std::vector<std::int8_t> a, b;
};

// Scales and minima of a row. `scale` and `zero` of its groups, each `group` columns wide.
bool set_scales(const Recoder& recoder, const float* scale, const float* zero, std::int64_t group,
                RowParts& parts) {
  const GgmlBlockInfo& info = recoder.info;
  const bool minimum = recoder.scheme.zero_point == ZeroPoint::kMinimum;
  const auto blocks = static_cast<std::int64_t>(parts.d.size());
  const std::int64_t groups = info.elements / info.group;
  for (std::int64_t b = 0; b < blocks; ++b) {
    if (groups > 1) {
      const auto super = super_parts(recoder.scheme.block, scale + b * groups,
                                     minimum ? zero + b * groups : nullptr);
      if (!super) return false;
      parts.d[b] = super->d;
      parts.m[b] = super->m;
      std::copy_n(super->a, groups, parts.a.begin() + b * groups);
      std::copy_n(super->b, groups, parts.b.begin() + b * groups);
      continue;
    }
    const std::int64_t g = b * kBlock / group;
    parts.d[b] = scale[g];
    parts.m[b] = recoder.minimum(scale[g], zero[g]);
    if (!is_half(parts.d[b]) ||
        (info.minimum && !std::isfinite(kernels::f16_value(kernels::f16_bits(parts.m[b]))))) {
      return false;
    }
    if (minimum && !is_half(parts.m[b])) return false;
  }
  return true;
}

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

std::optional<GgmlBlock> ggml_block_of(GgmlType type) {
  for (const auto& [ggml, block] : kBlocks) {
    if (ggml == type) return block;
  }
  return std::nullopt;
}

std::optional<Fit> fit(GgmlType type, const QuantScheme& scheme, std::int64_t columns) {
  if (scheme.activation_bits != 0) return std::nullopt;
  const std::optional<GgmlBlock> block = ggml_block_of(type);
  if (!block || columns % kernels::ggml_block_info(*block).elements != 0) return std::nullopt;
  const BlockGrid own = block_grid_of(type);
  if (own != scheme.block) return std::nullopt;
  if (own != BlockGrid::kNone) return Fit::kExact;
  const std::int64_t group = scheme.group_size == 0 ? columns : scheme.group_size;
  if (group % kBlock != 0 || scheme.scale_type != at::kHalf) return std::nullopt;
  const bool symmetric = scheme.zero_point == ZeroPoint::kSymmetric;
  if (type == GgmlType::q8_0) {  // differences of codes of up to 7 bits lie within [-127, 127]
    const bool within = scheme.zero_point == ZeroPoint::kInteger && scheme.bits <= 7;
    return symmetric || within ? std::optional(Fit::kExact) : std::nullopt;
  }
  const GgmlBlockInfo& info = kernels::ggml_block_info(*block);
  if (scheme.levels() > info.top + 1) return std::nullopt;
  if (!info.minimum) return symmetric ? std::optional(Fit::kExact) : std::nullopt;
  return scheme.zero_point == ZeroPoint::kMinimum ? Fit::kExact : Fit::kRoundedMinimum;
}

std::optional<GgmlType> smallest_fit(const QuantScheme& scheme, std::int64_t columns) {
  for (const GgmlType type : {GgmlType::q2_k, GgmlType::q3_k, GgmlType::iq4_xs, GgmlType::q4_k,
                              GgmlType::iq4_nl, GgmlType::q5_k, GgmlType::q6_k, GgmlType::q4_0,
                              GgmlType::q4_1, GgmlType::q5_0, GgmlType::q5_1, GgmlType::q8_0}) {
    if (fit(type, scheme, columns)) return type;
  }
  return std::nullopt;
}

std::optional<std::vector<std::byte>> keep_codes(GgmlType type, const QuantizedWeight& weight) {
  const std::int64_t rows = weight.codes.size(0), columns = weight.codes.size(1);
  const std::optional<GgmlBlock> block = ggml_block_of(type);
  if (!block || block_grid_of(type) != weight.scheme.block) return std::nullopt;
  const GgmlBlockInfo& info = kernels::ggml_block_info(*block);
  const bool minimum = weight.scheme.zero_point == ZeroPoint::kMinimum;
  const std::int64_t group = weight.scheme.group_size == 0 ? columns : weight.scheme.group_size;
  if (columns % info.elements != 0 || group % info.group != 0 || (minimum && !info.minimum)) {
    return std::nullopt;
  }
  const Recoder recoder{info, weight.scheme};
  const std::int64_t groups = weight.scheme.groups(columns);
  const at::Tensor codes = weight.codes.contiguous(), scales = weight.scale.contiguous();
  const at::Tensor zeros = weight.zero.defined() ? weight.zero.contiguous() : scales;
  const auto* code = codes.const_data_ptr<std::uint8_t>();
  const auto* scale = scales.const_data_ptr<float>();
  const auto* zero = zeros.const_data_ptr<float>();
  const std::int64_t bytes = row_bytes(type, columns);
  std::vector<std::byte> packed(static_cast<std::size_t>(rows * bytes));

  const bool kept = all_rows(rows, [&](std::int64_t row) {
    RowParts parts(info, columns);
    const float* row_zero = zero + row * groups;
    if (!set_scales(recoder, scale + row * groups, row_zero, group, parts)) return false;
    for (std::int64_t k = 0; k < columns; ++k) {
      const int value = recoder.code(code[row * columns + k], row_zero[k / group]);
      if (value < 0 || value > info.top) return false;
      parts.codes[k] = static_cast<std::uint8_t>(value);
    }
    kernels::ggml_pack(*block, parts.pointers(), columns, packed.data() + row * bytes);
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
  const std::optional<GgmlBlock> block = ggml_block_of(type);
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

std::vector<std::byte> encode_weighted(GgmlType type, const at::Tensor& values,
                                       const at::Tensor& column_weights) {
  const Grid grid = choose_grid(values, scheme_of(type), {.search = true}, column_weights);
  if (const auto bytes = keep_codes(type, quantize_to_grid(values, grid))) return *bytes;
  return encode(type, values);  // a scale beyond float16
}

at::Tensor decode(GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                  std::int64_t in) {
  const std::int64_t stride = row_bytes(type, in);
  require(bytes.size() == static_cast<std::size_t>(out * stride), "gguf", "a ",
          io::ggml_type_info(type).name, " tensor of ", out, " rows of ", in, " needs ",
          out * stride, " bytes, got ", bytes.size());
  const at::Tensor values = at::empty({out, in}, at::kFloat);
  auto* to = values.mutable_data_ptr<float>();
  const std::optional<GgmlBlock> block = ggml_block_of(type);
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

bool is_block_type(GgmlType type) { return ggml_block_of(type).has_value(); }

QuantScheme scheme_of(GgmlType type) {
  if (const BlockGrid grid = block_grid_of(type); grid != BlockGrid::kNone) {
    return block_scheme(grid);
  }
  const GgmlBlockInfo& info = kernels::ggml_block_info(ggml_block_of(type).value());
  QuantScheme scheme;
  scheme.bits = info.top == 255 ? 8 : info.top == 31 ? 5 : 4;
  scheme.group_size = kBlock;
  scheme.zero_point = info.minimum ? ZeroPoint::kMinimum : ZeroPoint::kSymmetric;
  scheme.scale_type = at::kHalf;
  return scheme;
}

QuantizedWeight unpack_blocks(GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                              std::int64_t in) {
  const std::int64_t stride = row_bytes(type, in);
  const std::optional<GgmlBlock> block = ggml_block_of(type);
  require(block && bytes.size() == static_cast<std::size_t>(out * stride), "gguf", "cannot unpack ",
          io::ggml_type_info(type).name);
  const GgmlBlockInfo& info = kernels::ggml_block_info(*block);
  const std::int64_t groups = in / info.group, each = info.elements / info.group;
  QuantizedWeight weight{
      scheme_of(type), at::empty({out, in}, at::kByte), at::empty({out, groups}, at::kFloat), {}};
  if (info.minimum) weight.zero = at::empty({out, groups}, at::kFloat);
  auto* code = weight.codes.mutable_data_ptr<std::uint8_t>();
  auto* scale = weight.scale.mutable_data_ptr<float>();
  auto* zero = weight.zero.defined() ? weight.zero.mutable_data_ptr<float>() : nullptr;
  all_rows(out, [&](std::int64_t row) {
    RowParts parts(info, in);
    kernels::ggml_unpack(*block, bytes.data() + row * stride, in, parts.pointers());
    for (std::int64_t k = 0; k < in; ++k) {
      const std::uint8_t found = parts.codes[k];
      code[row * in + k] =
          info.table ? static_cast<std::uint8_t>(128 + kernels::kTable16[found]) : found;
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      const float d = parts.d[g / each], m = parts.m[g / each];
      scale[row * groups + g] = each > 1 ? d * static_cast<float>(parts.a[g]) : d;
      if (zero == nullptr) continue;
      zero[row * groups + g] = each > 1 ? -(m * static_cast<float>(parts.b[g])) : m;
    }
    return true;
  });
  return weight;
}

}  // namespace attar
