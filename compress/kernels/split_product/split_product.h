// Products of float32 matrices on the bfloat16 tile instructions of the processor (AMX), with the
// exactness of float32: a float32 is the sum of three bfloat16, x = x1 + x2 + x3, and of the nine
// products of pieces the six that reach above 2^-26 of the whole are added up in float32 (Henry,
// Tang and Heinecke 2019, arXiv:1904.06376). A weight that two pieces hold exactly, as every
// float16 is, or one, as every bfloat16 is, needs five or three products.
//
// Only some variants can (has_split_product); the others leave products to the BLAS. Everything
// below the smallest normal float32 counts as zero; a value that is not finite, or beyond 3.389e38,
// makes every sum it takes part in not finite.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

bool has_split_product(const Variant& variant = active_variant());

// Bytes of a packed matrix of `columns` outputs and `inner` inputs.
std::int64_t split_bytes(std::int64_t columns, std::int64_t inner, int pieces);

// Writes rows of W [columns, inner], the weights of outputs [first, first + count), into a packed
// matrix. Outputs come in panels of 32: the rest of the last one must be zero.
struct SplitPack {
  const float* values;  // [count, inner], contiguous
  std::int64_t first;
  std::int64_t count;
  std::int64_t inner;
  int pieces;     // 1 .. 3
  void* weights;  // split_bytes(columns, inner, pieces) of the whole, 64-byte aligned
};

// How many pieces hold these values exactly, 1 .. 3; at most call.pieces have been written.
int split_pack(const SplitPack& call, const Variant& variant = active_variant());

// out = x W^T + bias + added. Every element is one chain of sums in an order of its own row and
// column alone.
struct SplitProduct {
  const float* x;         // [rows, inner], rows x_stride floats apart
  std::int64_t x_stride;  //
  std::int64_t rows;      //
  std::int64_t inner;     //
  const void* weights;    // packed W [columns, inner], 64-byte aligned
  std::int64_t columns;   //
  int pieces;             // of weights
  const float* bias;      // [columns] or nullptr
  const float* added;     // [rows, columns], rows out_stride floats apart, or nullptr; may be out
  float* out;             // [rows, columns]
  std::int64_t out_stride;
};
void split_product(const SplitProduct& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
