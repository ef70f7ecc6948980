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

#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/variants.h"

namespace attar::kernels {

bool has_split_product(const Variant& variant = active_variant());

// Bytes of a packed matrix of `columns` outputs and `inner` inputs.
std::int64_t split_bytes(std::int64_t columns, std::int64_t inner, int pieces);

enum class SplitSource : std::uint8_t { f32, f16, bf16 };

// Writes rows of W [columns, inner], the weights of outputs [first, first + count), into a packed
// matrix. Outputs come in panels of 32: the rest of the last one must be zero.
struct SplitPack {
  const void* values;  // [count, inner] of `type`, contiguous
  SplitSource type;
  std::int64_t first;
  std::int64_t count;
  std::int64_t inner;
  int pieces;     // 1 .. 3
  void* weights;  // split_bytes(columns, inner, pieces) of the whole, 64-byte aligned
};

// How many pieces hold these values exactly, 1 .. 3; at most call.pieces have been written.
int split_pack(const SplitPack& call, const Variant& variant = active_variant());

// A layer: packed W [columns, inner], 64-byte aligned, and a bias [columns] or nullptr.
struct SplitLayer {
  const void* weights;
  std::int64_t inner;
  std::int64_t columns;
  int pieces;
  const float* bias;
};

// out = x W^T + bias + added, or norm(x) W^T + ... with `norm`. Every element is one chain of sums
// in an order of its own row and column alone.
struct SplitProduct {
  const float* x;         // [rows, inner], rows x_stride floats apart
  std::int64_t x_stride;  // inner, where there is a norm
  std::int64_t rows;
  SplitLayer layer;
  const float* added;  // [rows, columns], rows out_stride floats apart, or nullptr; may be out
  float* out;          // [rows, columns]
  std::int64_t out_stride;
  const float* norm = nullptr;  // [inner]: see rms_norm
  float eps = 0;
};
void split_product(const SplitProduct& call, const Variant& variant = active_variant());

// What follows attention in a block, for a few rows at a time that stay in the cache:
//   h = x + output(mixed),   out = h + down(act(gate(norm(h))) * up(norm(h)))
// The same bits as step by step. All rows are contiguous; out may be x.
struct SplitFinish {
  const float* x;      // [rows, hidden]
  const float* mixed;  // [rows, output.inner]
  std::int64_t rows;
  SplitLayer output;  // to hidden
  const float* norm;  // [hidden]
  float eps;
  SplitLayer gate_up;  // hidden to gate | up, each a multiple of 32 wide
  Activation activation;
  SplitLayer down;
  float* out;  // [rows, hidden]
};
void split_finish(const SplitFinish& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
