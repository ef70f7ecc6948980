// Random grids of codes, their packed form, and products of them by the definition in
// quantized_product.h, one operation after another.
#pragma once

#include <algorithm>
#include <memory>

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/convert/f16.h"
#include "compress/kernels/quantized_product/quantized_product.h"
#include "tests/kernels/each_variant.h"

namespace attar::kernels {

// Random codes with parameters of a kind.
struct Grid {
  std::vector<std::uint8_t> codes;
  std::vector<float> scale, second;
  std::int64_t count, inner, group;
  int bits;
  SecondParameter kind;
  const std::int8_t* table = nullptr;
  std::vector<float> super_d, super_m;  // with super-blocks; then scale and second follow from them
  std::vector<std::int8_t> super_a, super_b;

  GridRows rows() const {
    const bool has = kind != SecondParameter::none;
    GridRows rows{codes.data(), scale.data(), has ? second.data() : nullptr,
                  count,        inner,        group,
                  bits,         kind,         table};
    if (!super_d.empty()) {
      rows.scale = rows.second = nullptr;
      rows.super = {super_d.data(), has ? super_m.data() : nullptr, super_a.data(),
                    has ? super_b.data() : nullptr};
    }
    return rows;
  }
  std::int64_t groups() const { return (inner + group - 1) / group; }
  // What a code stands for before it is scaled.
  int level(std::int64_t row, std::int64_t k, int zero) const {
    const int code = codes[static_cast<std::size_t>(row * inner + k)];
    return table != nullptr ? table[code] : code - zero;
  }
  double value(std::int64_t row, std::int64_t k) const {
    const std::int64_t g = row * groups() + k / group;
    const double code = codes[static_cast<std::size_t>(row * inner + k)];
    const double d = scale[static_cast<std::size_t>(g)];
    if (kind == SecondParameter::none) return d * level(row, k, 1 << (bits - 1));
    const double z = second[static_cast<std::size_t>(g)];
    return kind == SecondParameter::zero ? d * (code - z) : d * code + z;
  }
};

enum class Scales { halves, floats };

inline Grid random_grid(int bits, SecondParameter kind, std::int64_t count, std::int64_t inner,
                        std::int64_t group, unsigned seed, Scales scales = Scales::halves) {
  Grid grid{{}, {}, {}, count, inner, group, bits, kind};
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, 1);
  for (std::int64_t i = 0; i < count * inner; ++i) {
    grid.codes.push_back(static_cast<std::uint8_t>(engine() % (1u << bits)));
  }
  for (std::int64_t i = 0; i < count * grid.groups(); ++i) {
    const auto stored = [&](float x) {
      return scales == Scales::halves ? f16_value(f16_bits(x)) : x;
    };
    grid.scale.push_back(stored(0.01f * normal(engine)));
    grid.second.push_back(kind == SecondParameter::zero
                              ? static_cast<float>(engine() % (1u << bits))
                              : stored(0.1f * normal(engine)));
  }
  return grid;
}

// The same in super-blocks of 256.
inline Grid super_grid(int bits, SecondParameter kind, std::int64_t count, std::int64_t inner,
                       std::int64_t group, unsigned seed) {
  Grid grid = random_grid(bits, kind, count, inner, group, seed);
  std::mt19937 engine(seed + 1);
  std::normal_distribution<float> normal(0, 1);
  for (std::int64_t i = 0; i < count * inner / 256; ++i) {
    grid.super_d.push_back(f16_value(f16_bits(0.001f * normal(engine))));
    grid.super_m.push_back(f16_value(f16_bits(0.001f * normal(engine))));
  }
  for (std::size_t g = 0; g < grid.scale.size(); ++g) {
    grid.super_a.push_back(static_cast<std::int8_t>(engine() % 256));
    grid.super_b.push_back(static_cast<std::int8_t>(engine() % 256));
    const std::size_t super = g / static_cast<std::size_t>(256 / group);
    grid.scale[g] = grid.super_d[super] * grid.super_a[g];
    grid.second[g] = grid.super_m[super] * grid.super_b[g];
  }
  return grid;
}

// IQ4's, or MXFP4's doubled.
inline constexpr std::int8_t kE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
inline Grid table_of(Grid grid, const std::int8_t* table = kTable16) {
  grid.table = table;
  return grid;
}

struct Aligned {
  explicit Aligned(std::int64_t bytes)
      : memory(std::aligned_alloc(64, static_cast<std::size_t>((bytes + 63) / 64 * 64)),
               &std::free) {}
  std::unique_ptr<void, void (*)(void*)> memory;
};

struct Packed {
  explicit Packed(const Grid& grid)
      : format(format_for(grid.rows())),
        bytes(quantized_bytes(grid.count, grid.inner, format)),
        layer{bytes.memory.get(), grid.inner, grid.count, format} {
    quantized_pack(grid.rows(), format, bytes.memory.get());
  }
  QuantizedFormat format;
  Aligned bytes;
  QuantizedLayer layer;
};

// x W^T of all rows at once.
inline Array<float> product(const Packed& weights, const Array<float>& x, std::int64_t rows,
                            const Variant& variant, const float* bias = nullptr,
                            const float* added = nullptr, RoundedBy by = RoundedBy::block) {
  const Aligned memory(rounded_bytes(rows, weights.layer.inner));
  const RoundedRows rounded = rounded_rows(memory.memory.get(), rows, weights.layer.inner, by);
  round_rows({x.data(), weights.layer.inner, rounded}, variant);
  Array<float> out(rows * weights.layer.columns);
  quantized_product({rounded, weights.layer, bias, added, out.data(), weights.layer.columns},
                    variant);
  EXPECT_TRUE(out.guards_hold());
  return out;
}

// a and q of a block of 32.
struct RoundedBlock {
  float a = 0;
  int q[32] = {};
};

inline RoundedBlock rounded_block(const float* x, std::int64_t b, std::int64_t inner,
                                  RoundedBy by) {
  const bool alone = by == RoundedBy::block;
  const float* block = x + 32 * b;
  float largest = 0;
  for (std::int64_t k = 0; k < (alone ? 32 : inner); ++k) {
    largest = std::max(largest, std::fabs((alone ? block : x)[k]));
  }
  RoundedBlock found;
  if (alone && !(largest >= 0x1p-100f)) return found;
  found.a = largest / (alone ? 127.0f : 127.5f);
  for (int k = 0; k < 32; ++k) {
    const float q = std::nearbyint(alone ? block[k] * (127.0f / largest) : block[k] / found.a);
    found.q[k] = std::clamp(static_cast<int>(q), -128, 127);
  }
  return found;
}

// The definition in quantized_product.h, one operation after another.
inline float expected(const Grid& grid, const Packed& weights, std::int64_t row, const float* x,
                      RoundedBy by = RoundedBy::block) {
  float out = 0;
  const bool wide = weights.format.bits == 8;
  const int piece = grid.group < 32 ? 16 : 32;  // inputs that are summed up in integers
  for (std::int64_t first = 0; first < grid.inner; first += piece) {
    const RoundedBlock block = rounded_block(x, first / 32, grid.inner, by);
    const float a = block.a;
    const std::int64_t g = row * grid.groups() + first / grid.group;
    const float d = grid.scale[static_cast<std::size_t>(g)];
    const float z = grid.second[static_cast<std::size_t>(g)];
    const int zero = grid.kind == SecondParameter::none ? 1 << (grid.bits - 1) : wide ? 128 : 0;
    int whole = 0, sum = 0;
    for (std::int64_t k = first; k < first + piece; ++k) {
      whole += block.q[k % 32] * grid.level(row, k, zero);
      sum += block.q[k % 32];
    }
    const float s = a * static_cast<float>(sum);
    out = std::fma(d * a, static_cast<float>(whole), out);
    if (grid.kind == SecondParameter::minimum) out = std::fma(wide ? z + 128 * d : z, s, out);
    if (grid.kind == SecondParameter::zero) out = std::fma(-(d * (wide ? z - 128 : z)), s, out);
  }
  return out;
}

}  // namespace attar::kernels
