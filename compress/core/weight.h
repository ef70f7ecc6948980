// What a weight can be. How it becomes so lives in a pass.
//
// Shape letters: O output features, I input features, G groups of input columns, R rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "compress/kernels/round_tokens/round_tokens.h"

namespace attar {

// Plain values, [O, I], float32 | float16 | bfloat16. May be a read-only view of a mapped file.
struct DenseWeight {
  at::Tensor values;  // undefined: a layer that is not there, [0, 0]
};

// Where the zero of a group lies.
enum class ZeroPoint {
  kSymmetric,  // value = scale * (code - 2^(bits-1)); no zero is stored
  kInteger,    // value = scale * (code - zero), zero an integer in [0, 2^bits - 1]
  kMinimum,    // value = scale * code + zero, zero a real number (ggml's *_1 types)
};
std::string_view to_string(ZeroPoint zero_point);

// Grids that are more than a scale and a zero a group: those of GGUF's searched block types. A
// weight on one of them is dequantized as its bits and zero point say, like any other.
//   k-quants, IQ4_XS  a super-block of 256 columns shares float16 numbers d (and m); the scale of a
//                     group is d a, its minimum -m b, with small integers a and b
//   IQ4_NL, IQ4_XS    of the 256 codes of 8 bits only 16 are used: 128 + kernels::kTable16
// And number grids whose levels are not evenly spaced (levels.h): value = scale * level of the
// code.
//   FP8               E4M3, a float32 scale a row
//   MXFP4             E2M1, a power of two a group of 32
//   NF4               quantiles of a normal distribution, a float16 scale a group of 64
enum class BlockGrid : std::uint8_t {
  kNone,
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,
  kIq4Nl,
  kIq4Xs,
  kFp8,
  kMxfp4,
  kNf4,
};
std::string_view to_string(BlockGrid grid);         // "", "Q2_K", ...
BlockGrid block_grid_named(std::string_view name);  // kNone where there is none

// The grid of a quantized weight: what the recipe asks for and what the file must be able to hold.
struct QuantScheme {
  int bits = 4;                 // 2..8
  std::int64_t group_size = 0;  // input columns that share a scale; 0: the whole row
  ZeroPoint zero_point = ZeroPoint::kInteger;
  at::ScalarType scale_type = at::kHalf;  // what a scale is rounded to in the file
  BlockGrid block = BlockGrid::kNone;     // else the rest is block_scheme's
  // 8: what the layer reads is rounded too, every token to 8 bits with a scale of its own
  // (compress/kernels/round_tokens), wherever the model runs; to E4M3 where the weight is FP8, to
  // integers otherwise. 0: it is not.
  int activation_bits = 0;

  int levels() const { return 1 << bits; }
  std::int64_t groups(std::int64_t columns) const {
    return group_size == 0 ? 1 : (columns + group_size - 1) / group_size;
  }
  bool table() const { return block == BlockGrid::kIq4Nl || block == BlockGrid::kIq4Xs; }
  // Whether every group can hold 0 exactly; a mask of an earlier pass stays there alone.
  bool holds_zero() const { return zero_point != ZeroPoint::kMinimum && !table(); }
  // Whether the levels are those of a number format (levels.h).
  bool floating() const { return block >= BlockGrid::kFp8; }
  // What the layer's input is rounded to, if it is.
  std::optional<kernels::TokenGrid> token_grid() const;
  // Columns that must go together: the group, or the super-block.
  std::int64_t block_columns() const {
    return block == BlockGrid::kNone || block == BlockGrid::kIq4Nl || floating() ? group_size : 256;
  }
  // Codes, scales and stored zeros of an [O, I] weight, in bits a weight. An integer zero costs
  // `bits`, a minimum costs 16; of a block grid the bits of its blocks.
  double bits_per_weight(std::int64_t columns) const;
  bool operator==(const QuantScheme&) const = default;
};

// "W4 g64 asymmetric", "W8A8 rows symmetric", "Q4_K", "FP8 A8".
std::string describe(const QuantScheme& scheme);

// The scheme of a block grid. Not for kNone.
QuantScheme block_scheme(BlockGrid grid);

// Codes on a grid of groups. Always dequantized as written at ZeroPoint, in float32, so that every
// program which reads the export computes the same values.
//   codes  [O, I] uint8, unsigned (a symmetric 4-bit code -8 is stored as 0)
//   scale  [O, G] float32, each value representable in scheme.scale_type
//   zero   [O, G] float32: integers (kInteger), minima (kMinimum), undefined (kSymmetric)
struct QuantizedWeight {
  QuantScheme scheme;
  at::Tensor codes;
  at::Tensor scale;
  at::Tensor zero;
};

// Mostly zeros: the values that stay, row after row, and one bit an element (bit 0 of byte 0 is
// column 0 of the row).
//   values  [nonzeros] float32 | float16 | bfloat16
//   mask    [O, ceil(I / 8)] uint8
struct SparseWeight {
  at::Tensor values;
  at::Tensor mask;
  std::int64_t columns = 0;
};

// B A, rank R: y = B (A x).
//   b  [O, R],  a  [R, I], floating
struct LowRankWeight {
  at::Tensor b;
  at::Tensor a;
  std::int64_t code_bytes = 0;  // what codes of them take, where they lie on a grid; 0: they do not
};

// A base plus a low-rank correction of what the base lost.
struct CorrectedWeight {
  std::variant<DenseWeight, QuantizedWeight, SparseWeight> base;
  LowRankWeight correction;
};

using Weight =
    std::variant<DenseWeight, QuantizedWeight, SparseWeight, LowRankWeight, CorrectedWeight>;

struct WeightShape {
  std::int64_t out = 0;
  std::int64_t in = 0;
  bool operator==(const WeightShape&) const = default;
};

WeightShape shape_of(const Weight& weight);
std::string_view kind_of(const Weight& weight);  // "dense", "quantized", "sparse", ...

// Bytes of the weight as a file would hold it (packed codes, scales, zeros, mask).
std::int64_t stored_bytes(const Weight& weight);

// What a layer with this weight rounds its input to, if it does (QuantScheme::activation_bits).
std::optional<kernels::TokenGrid> token_grid(const Weight& weight);

// The equal dense matrix, [O, I] float32. Differentiable with respect to dense values, scales,
// real zeros and factors.
at::Tensor dense(const Weight& weight);

// Zeros of a dense matrix left out. `values` [O, I] floating.
SparseWeight to_sparse(const at::Tensor& values);

// The mask of a sparse weight (also as the base of a corrected one), [O, I] bool: true where a
// value is kept. Undefined for the other kinds: whether they hold zeros means nothing.
at::Tensor kept_positions(const Weight& weight);

// `values` [O, I] in the kind of `state`: sparse where that is sparse (zeros of `values` are left
// out), dense otherwise.
Weight with_values(const Weight& state, const at::Tensor& values);

// Throws BadInput when parts disagree in shape or type, or a code exceeds the grid.
void check(const Weight& weight, std::string_view where);

}  // namespace attar
