#include "compress/core/weight.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/core/levels.h"

namespace attar {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

// The level of every code, [O, I] float32.
at::Tensor levels(const at::Tensor& codes, const Levels& levels) {
  const at::Tensor plain = codes.contiguous();
  at::Tensor values = at::empty(codes.sizes(), at::kFloat);
  const auto* code = plain.const_data_ptr<std::uint8_t>();
  auto* value = values.mutable_data_ptr<float>();
  std::transform(code, code + plain.numel(), value,
                 [&](std::uint8_t c) { return levels.value(c); });
  return values;
}

at::Tensor dense(const QuantizedWeight& w) {
  const std::int64_t rows = w.codes.size(0), columns = w.codes.size(1);
  const std::int64_t groups = w.scale.size(1);
  if (const Levels* table = levels_of(w.scheme.block)) {
    const at::Tensor grouped = levels(w.codes, *table).reshape({rows, groups, columns / groups});
    return (grouped * w.scale.unsqueeze(2)).reshape({rows, columns});
  }
  const at::Tensor codes = w.codes.to(at::kFloat).reshape({rows, groups, columns / groups});
  const at::Tensor scale = w.scale.unsqueeze(2);
  at::Tensor values;
  switch (w.scheme.zero_point) {
    case ZeroPoint::kSymmetric:
      values = (codes - static_cast<double>(w.scheme.levels() / 2)) * scale;
      break;
    case ZeroPoint::kInteger:
      values = (codes - w.zero.unsqueeze(2)) * scale;
      break;
    case ZeroPoint::kMinimum:
      values = codes * scale + w.zero.unsqueeze(2);
      break;
  }
  return values.reshape({rows, columns});
}

// Bits of the mask as booleans, [O, I].
at::Tensor mask_bits(const SparseWeight& w) {
  const at::Tensor shifts = at::arange(8, at::kByte);
  const at::Tensor bits =
      at::bitwise_and(at::bitwise_right_shift(w.mask.unsqueeze(2), shifts), 1).to(at::kBool);
  return bits.reshape({w.mask.size(0), -1}).narrow(1, 0, w.columns);
}

at::Tensor dense(const SparseWeight& w) {
  const at::Tensor bits = mask_bits(w);
  const at::Tensor zeros = at::zeros(bits.sizes(), at::kFloat);
  return zeros.masked_scatter(bits, w.values.to(at::kFloat));
}

at::Tensor dense(const LowRankWeight& w) {
  return at::matmul(w.b.to(at::kFloat), w.a.to(at::kFloat));
}

at::Tensor dense(const DenseWeight& w) { return w.values.to(at::kFloat); }

at::Tensor dense(const CorrectedWeight& w) {
  return std::visit([](const auto& base) { return dense(base); }, w.base) + dense(w.correction);
}

std::int64_t bytes_of(const at::Tensor& t) {
  return t.defined() ? t.numel() * static_cast<std::int64_t>(t.element_size()) : 0;
}

std::int64_t bytes_of(const QuantizedWeight& w) {
  const double bits = w.scheme.bits_per_weight(w.codes.size(1));
  return static_cast<std::int64_t>(bits * static_cast<double>(w.codes.numel()) / 8.0 + 0.5);
}
std::int64_t bytes_of(const DenseWeight& w) { return bytes_of(w.values); }
std::int64_t bytes_of(const SparseWeight& w) { return bytes_of(w.values) + bytes_of(w.mask); }
std::int64_t bytes_of(const LowRankWeight& w) {
  return w.code_bytes > 0 ? w.code_bytes : bytes_of(w.b) + bytes_of(w.a);
}
std::int64_t bytes_of(const CorrectedWeight& w) {
  return std::visit([](const auto& base) { return bytes_of(base); }, w.base) +
         bytes_of(w.correction);
}

WeightShape shape(const DenseWeight& w) {
  return w.values.defined() ? WeightShape{w.values.size(0), w.values.size(1)} : WeightShape{};
}
WeightShape shape(const QuantizedWeight& w) { return {w.codes.size(0), w.codes.size(1)}; }
WeightShape shape(const SparseWeight& w) { return {w.mask.size(0), w.columns}; }
WeightShape shape(const LowRankWeight& w) { return {w.b.size(0), w.a.size(1)}; }
WeightShape shape(const CorrectedWeight& w) {
  return std::visit([](const auto& base) { return shape(base); }, w.base);
}

void check_matrix(const at::Tensor& t, std::string_view what, std::string_view where) {
  require(t.defined() && t.dim() == 2, where, what, " must be a matrix, got ",
          t.defined() ? t.dim() : 0, " dimensions");
}

void check_floating(const at::Tensor& t, std::string_view what, std::string_view where) {
  const auto type = t.scalar_type();
  require(type == at::kFloat || type == at::kHalf || type == at::kBFloat16, where, what,
          " must be float32, float16 or bfloat16, got ", toString(type));
}

void check(const DenseWeight& w, std::string_view where) {
  check_matrix(w.values, "values", where);
  check_floating(w.values, "values", where);
}

void check(const QuantizedWeight& w, std::string_view where) {
  check_matrix(w.codes, "codes", where);
  check_matrix(w.scale, "scale", where);
  require(w.scheme.bits >= 2 && w.scheme.bits <= 8, where, "bits must be in [2, 8], got ",
          w.scheme.bits);
  require(w.scheme.activation_bits == 0 || w.scheme.activation_bits == 8, where,
          "activation_bits must be 0 or 8, got ", w.scheme.activation_bits);
  require(w.scheme.activation_bits == 0 || w.scheme.block == BlockGrid::kNone ||
              w.scheme.block == BlockGrid::kFp8,
          where, "a layer of ", to_string(w.scheme.block), " cannot round what it reads");
  require(w.codes.scalar_type() == at::kByte && w.scale.scalar_type() == at::kFloat, where,
          "codes must be uint8 and scale float32");
  const std::int64_t columns = w.codes.size(1), groups = w.scheme.groups(columns);
  require(columns % groups == 0 && (w.scheme.group_size == 0 || columns % w.scheme.group_size == 0),
          where, "group_size must divide input features, got ", w.scheme.group_size, " and ",
          columns);
  require(w.scale.size(0) == w.codes.size(0) && w.scale.size(1) == groups, where, "scale must be [",
          w.codes.size(0), ", ", groups, "], got ", w.scale.sizes());
  require(w.scheme.zero_point == ZeroPoint::kSymmetric ||
              (w.zero.defined() && w.zero.sizes() == w.scale.sizes()),
          where, "zero must have the shape of scale");
  require(w.codes.numel() == 0 || w.codes.max().item<int>() < w.scheme.levels(), where,
          "a code exceeds the grid of ", w.scheme.levels(), " levels");
  require(w.scheme.block != BlockGrid::kFp8 || !dense(w).isnan().any().item<bool>(), where,
          "a code of FP8 is not a number");
}

void check(const SparseWeight& w, std::string_view where) {
  check_matrix(w.mask, "mask", where);
  check_floating(w.values, "values", where);
  require(w.mask.scalar_type() == at::kByte && w.mask.size(1) == (w.columns + 7) / 8, where,
          "mask must be uint8 [O, ", (w.columns + 7) / 8, "], got ", w.mask.sizes());
  const std::int64_t kept = mask_bits(w).sum().item<std::int64_t>();
  require(kept == w.values.numel(), where, "mask keeps ", kept, " values, got ", w.values.numel());
}

void check(const LowRankWeight& w, std::string_view where) {
  check_matrix(w.b, "b", where);
  check_matrix(w.a, "a", where);
  check_floating(w.b, "b", where);
  check_floating(w.a, "a", where);
  require(w.b.size(1) == w.a.size(0), where, "ranks of b and a must agree, got ", w.b.size(1),
          " and ", w.a.size(0));
}

void check(const CorrectedWeight& w, std::string_view where) {
  std::visit([&](const auto& base) { check(base, where); }, w.base);
  check(w.correction, where);
  require(shape(w) == shape(w.correction), where, "base and correction must have one shape");
}

}  // namespace

std::string_view to_string(ZeroPoint zero_point) {
  switch (zero_point) {
    case ZeroPoint::kSymmetric:
      return "symmetric";
    case ZeroPoint::kInteger:
      return "asymmetric";
    case ZeroPoint::kMinimum:
      return "minimum";
  }
  throw std::logic_error("to_string: unknown zero point");
}

namespace {

struct BlockGridRow {
  std::string_view name;
  int bits;
  std::int64_t group;
  ZeroPoint zero_point;
  at::ScalarType scale_type;
  double bits_per_weight;
};

constexpr BlockGridRow kBlockGrids[] = {
    {"", 0, 0, ZeroPoint::kSymmetric, at::kHalf, 0},
    {"Q2_K", 2, 16, ZeroPoint::kMinimum, at::kFloat, 2.625},
    {"Q3_K", 3, 16, ZeroPoint::kSymmetric, at::kFloat, 3.4375},
    {"Q4_K", 4, 32, ZeroPoint::kMinimum, at::kFloat, 4.5},
    {"Q5_K", 5, 32, ZeroPoint::kMinimum, at::kFloat, 5.5},
    {"Q6_K", 6, 16, ZeroPoint::kSymmetric, at::kFloat, 6.5625},
    {"IQ4_NL", 8, 32, ZeroPoint::kSymmetric, at::kHalf, 4.5},
    {"IQ4_XS", 8, 32, ZeroPoint::kSymmetric, at::kFloat, 4.25},
    {"FP8", 8, 0, ZeroPoint::kSymmetric, at::kFloat, 8},
    {"MXFP4", 4, 32, ZeroPoint::kSymmetric, at::kFloat, 4.25},
    {"NF4", 4, 64, ZeroPoint::kSymmetric, at::kHalf, 4.25},
};

const BlockGridRow& row_of(BlockGrid grid) { return kBlockGrids[static_cast<std::size_t>(grid)]; }

}  // namespace

std::string_view to_string(BlockGrid grid) { return row_of(grid).name; }

BlockGrid block_grid_named(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kBlockGrids); ++i) {
    if (kBlockGrids[i].name == name) return static_cast<BlockGrid>(i);
  }
  return BlockGrid::kNone;
}

QuantScheme block_scheme(BlockGrid grid) {
  const BlockGridRow& row = row_of(grid);
  return {row.bits, row.group, row.zero_point, row.scale_type, grid};
}

double QuantScheme::bits_per_weight(std::int64_t columns) const {
  if (block != BlockGrid::kNone && group_size != 0) return row_of(block).bits_per_weight;
  const double zero_bits = zero_point == ZeroPoint::kSymmetric ? 0
                           : zero_point == ZeroPoint::kInteger ? bits
                                                               : 16;
  const double scale_bits = scale_type == at::kFloat ? 32 : 16;
  return bits + (scale_bits + zero_bits) * static_cast<double>(groups(columns)) /
                    static_cast<double>(columns);
}

std::optional<kernels::TokenGrid> QuantScheme::token_grid() const {
  if (activation_bits == 0) return std::nullopt;
  return block == BlockGrid::kFp8 ? kernels::TokenGrid::e4m3 : kernels::TokenGrid::integers;
}

std::string describe(const QuantScheme& scheme) {
  const std::string activations =
      scheme.activation_bits != 0 ? "A" + std::to_string(scheme.activation_bits) : "";
  if (scheme.block != BlockGrid::kNone) {
    return std::string(to_string(scheme.block)) + (activations.empty() ? "" : " " + activations);
  }
  return "W" + std::to_string(scheme.bits) + activations +
         (scheme.group_size == 0 ? " rows" : " g" + std::to_string(scheme.group_size)) + " " +
         std::string(to_string(scheme.zero_point));
}

std::optional<kernels::TokenGrid> token_grid(const Weight& weight) {
  if (const auto* codes = std::get_if<QuantizedWeight>(&weight)) return codes->scheme.token_grid();
  const auto* sum = std::get_if<CorrectedWeight>(&weight);
  const auto* base = sum ? std::get_if<QuantizedWeight>(&sum->base) : nullptr;
  return base ? base->scheme.token_grid() : std::nullopt;
}

WeightShape shape_of(const Weight& weight) {
  return std::visit([](const auto& w) { return shape(w); }, weight);
}

std::string_view kind_of(const Weight& weight) {
  return std::visit(Overloaded{[](const DenseWeight&) { return "dense"; },
                               [](const QuantizedWeight&) { return "quantized"; },
                               [](const SparseWeight&) { return "sparse"; },
                               [](const LowRankWeight&) { return "low-rank"; },
                               [](const CorrectedWeight&) { return "corrected"; }},
                    weight);
}

std::int64_t stored_bytes(const Weight& weight) {
  return std::visit([](const auto& w) { return bytes_of(w); }, weight);
}

at::Tensor dense(const Weight& weight) {
  return std::visit([](const auto& w) { return dense(w); }, weight);
}

SparseWeight to_sparse(const at::Tensor& values) {
  const at::Tensor kept = values.ne(0);
  const std::int64_t columns = values.size(1), bytes = (columns + 7) / 8;
  at::Tensor padded = at::zeros({values.size(0), bytes * 8}, at::kByte);
  padded.narrow(1, 0, columns).copy_(kept);
  const at::Tensor powers = at::full({8}, 2, at::kInt).pow(at::arange(8, at::kInt));
  const at::Tensor mask =
      (padded.reshape({values.size(0), bytes, 8}).to(at::kInt) * powers).sum(2).to(at::kByte);
  return {values.masked_select(kept), mask, columns};
}

at::Tensor kept_positions(const Weight& weight) {
  if (const auto* sparse = std::get_if<SparseWeight>(&weight)) return mask_bits(*sparse);
  if (const auto* sum = std::get_if<CorrectedWeight>(&weight)) {
    if (const auto* sparse = std::get_if<SparseWeight>(&sum->base)) return mask_bits(*sparse);
  }
  return {};
}

Weight with_values(const Weight& state, const at::Tensor& values) {
  if (std::holds_alternative<SparseWeight>(state)) return to_sparse(values);
  return DenseWeight{values};
}

void check(const Weight& weight, std::string_view where) {
  std::visit([&](const auto& w) { check(w, where); }, weight);
}

}  // namespace attar
