// Products of weights on a grid of 2 to 8 bits with activations rounded to 8 bits, summed in
// integers: in blocks of 32 as llama.cpp's types do, or token by token as W8A8 asks for (Dettmers
// et al. 2022, arXiv:2208.07339, section 2).
//
// For a token t, an output r and blocks b of 32 inputs (halves of 16 where groups have 16), with
// the group g that b lies in:
//
//   i    = sum_k (code[r,k] - o) q[t,k]                         exact, in int32
//   out  = fma(d[r,g] a[t,b], i, out), then fma(m[r,g], s[t,b], out), for b = 0, 1, ...
//
// where q and a are the rounded activations, s = a sum_k q, and m is a minimum or -(d z). Integer
// sums are exact and the float32 operations come in this order in every variant: all variants give
// the same bits, for any number of threads, and for a row the same alone or beside others. In
// super-blocks of 256 inputs d and m of a group are exact products of a float16 number that the
// super-block shares and a signed whole number of 8 bits.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

// What a group has beside its scale.
enum class SecondParameter : std::uint8_t {
  none,     // value = d (code - 2^(bits - 1))
  minimum,  // value = d code + m
  zero,     // value = d (code - z), z whole, in [0, 255]
};

// How parameters are held: as they are, or as ggml's k-quants and IQ4_XS hold them.
enum class HeldAs : std::uint8_t { f32, f16, super };

// How packed weights are held.
struct QuantizedFormat {
  int bits;  // 2 .. 6 or 8
  SecondParameter second;
  HeldAs parameters;
  std::int64_t group;  // columns that share parameters: 16, or a multiple of 32
  // [16] or nullptr, of 4 bits: the value of a code is d table[code]; of any lifetime.
  const std::int8_t* table = nullptr;
  bool operator==(const QuantizedFormat&) const = default;
};

// What super-blocks of 256 columns share: scale = d a, second = m b.
struct SuperRows {
  const float* d;        // [count, inner / 256], float16 values
  const float* m;        // as d; nullptr where there is no second
  const std::int8_t* a;  // [count, inner / group]
  const std::int8_t* b;  // as a; nullptr where there is no second
};

// Rows of a matrix of codes.
struct GridRows {
  const std::uint8_t* codes;  // [count, inner]
  const float* scale;         // [count, ceil(inner / group)]
  const float* second;        // as scale; nullptr for SecondParameter::none
  std::int64_t count;
  std::int64_t inner;  // a multiple of 32; of 256 with super-blocks
  std::int64_t group;  // 16 (of up to 6 bits), or a multiple of 32, at most inner
  int bits;            // 2 .. 8: codes are below 2^bits
  SecondParameter kind;
  // [16] or nullptr, of 4 bits without a second: value = d table[code].
  const std::int8_t* table = nullptr;
  SuperRows super =
      {};  // d: in place of scale and second, which may be nullptr; groups of 16 or 32
};

// A format that holds the rows exactly, the smallest but for 2 and 3 bits in groups of 32 and more,
// which take 4. Throws std::invalid_argument if a size does not
// hold. The minima of 7 and 8 bits are shifted by 128 d and rounded to float32.
QuantizedFormat format_for(const GridRows& rows);

// Bytes of a packed matrix of `columns` outputs and `inner` inputs.
std::int64_t quantized_bytes(std::int64_t columns, std::int64_t inner,
                             const QuantizedFormat& format);

// Packs a whole matrix, rows.count outputs, into quantized_bytes at `weights`, 64-byte aligned.
void quantized_pack(const GridRows& rows, const QuantizedFormat& format, void* weights);

// Whose largest magnitude an activation is rounded by.
enum class RoundedBy : std::uint8_t {
  block,  // 32 inputs: a = max |x| / 127, q = x (127 / max |x|) to nearest, ties to even; a block
          // whose largest magnitude is below 2^-100 is zero
  token,  // the whole row, as round_tokens.h says: every block has its a, and q may be -128
};

// Rounded activations. A value that is not finite makes its block or token, and with it every
// product of the row, NaN. Tokens come in tiles of `tile`, tile after tile, block after block,
// token after token; the last tile is whole, its surplus tokens are zero.
struct RoundedRows {
  std::int64_t rows;
  std::int64_t inner;
  RoundedBy by;
  std::int64_t tile;      // 1, or 16 for more than one row
  std::int8_t* values;    // q
  float* scales;          // a
  float* sums;            // s = a sum q
  std::int32_t* offsets;  // -8 sum q
  std::int32_t* halves;   // sum q of the first 16 inputs, and of the last
};

std::int64_t rounded_bytes(std::int64_t rows, std::int64_t inner);
// Places the arrays in memory of that many bytes, 64-byte aligned.
RoundedRows rounded_rows(void* memory, std::int64_t rows, std::int64_t inner,
                         RoundedBy by = RoundedBy::block);

struct RoundRows {
  const float* x;         // [rows, inner]
  std::int64_t x_stride;  // floats between rows
  RoundedRows out;
};
void round_rows(const RoundRows& call, const Variant& variant = active_variant());

// A packed W [columns, inner], 64-byte aligned.
struct QuantizedLayer {
  const void* weights;
  std::int64_t inner;
  std::int64_t columns;
  QuantizedFormat format;
};

// out = x W^T + bias + added.
struct QuantizedProduct {
  RoundedRows x;
  QuantizedLayer layer;
  const float* bias;   // [columns] or nullptr
  const float* added;  // [rows, columns], rows out_stride floats apart, or nullptr; may be out
  float* out;          // [rows, columns]
  std::int64_t out_stride;
};
void quantized_product(const QuantizedProduct& call, const Variant& variant = active_variant());

// The outputs [begin, end) alone, on this thread; begin is a multiple of kOutputsTogether, end too
// or the last.
inline constexpr std::int64_t kOutputsTogether = 16;
void quantized_product_outputs(const QuantizedProduct& call, std::int64_t begin, std::int64_t end,
                               const Variant& variant = active_variant());

}  // namespace attar::kernels
