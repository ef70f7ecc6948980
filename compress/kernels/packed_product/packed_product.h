// Products of float32 matrices, x W^T: the one way in which attar multiplies them, so that a result
// is the same for any number of rows, threads and pieces, whatever BLAS there is.
//
// W is packed once, in panels of 32 outputs. On fused multiply-adds panels hold float32, or values
// of 16 bits as they are, which are widened where they are multiplied: the same bits from half the
// memory. On the tile instructions of the processor (AMX), which take bfloat16, a float32 is the
// sum of three bfloat16, x = x1 + x2 + x3, and of the nine products of pieces the six that reach
// above 2^-26 of the whole are added up in float32 (Henry, Tang and Heinecke 2019,
// arXiv:1904.06376). A weight that two pieces hold exactly, as every float16 is, or one, as every
// bfloat16 is, needs five or three products; everything below the smallest normal float32 counts as
// zero there.
//
// A value that is not finite, or beyond 3.389e38, makes every sum it takes part in not finite.
#pragma once

#include <cstdint>

#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/variants.h"

namespace attar::kernels {

enum class PackType : std::uint8_t { f32, f16, bf16 };

// What panels should hold of values of this type: the same, but for float16 where each would be
// widened in software again and again.
PackType type_to_hold(PackType type, const Variant& variant = active_variant());

// Bytes of a packed matrix of `columns` outputs and `inner` inputs. With tile instructions the same
// for any type that panels hold, without them for any number of pieces.
std::int64_t packed_bytes(std::int64_t columns, std::int64_t inner, int pieces,
                          PackType held = PackType::f32, const Variant& variant = active_variant());

// Writes rows of W [columns, inner], the weights of outputs [first, first + count), into a packed
// matrix. Outputs come in panels of 32: the rest of the last one must be zero.
struct PackMatrix {
  const void* values;  // [count, inner] of `type`, contiguous; [inner, count] if `turned`, then f32
  PackType type;
  std::int64_t first;
  std::int64_t count;
  std::int64_t inner;
  int pieces;     // 1 .. 3
  void* weights;  // packed_bytes(columns, inner, pieces) of the whole, 64-byte aligned
  bool turned = false;
  std::int64_t stride = 0;        // of the rows of turned values; 0: count
  PackType held = PackType::f32;  // by panels: f32, or `type`
};

// How many pieces hold these values exactly, 1 .. 3; at most call.pieces have been written. Always
// 1 without tile instructions.
int pack_matrix(const PackMatrix& call, const Variant& variant = active_variant());

// A layer: packed W [columns, inner], 64-byte aligned, and a bias [columns] or nullptr.
struct PackedLayer {
  const void* weights;
  std::int64_t inner;
  std::int64_t columns;
  int pieces;
  const float* bias;
  PackType held = PackType::f32;
};

// out = x W^T + bias + added, or norm(x) W^T + ... with `norm`. The order of an element's sums
// depends on nothing but `inner`.
struct PackedProduct {
  const float* x;         // [rows, inner], rows x_stride floats apart; [inner, rows] if `turned`
  std::int64_t x_stride;  // inner, where there is a norm
  std::int64_t rows;
  PackedLayer layer;
  const float* added;  // [rows, columns], rows out_stride floats apart, or nullptr; may be out
  float* out;          // [rows, columns]
  std::int64_t out_stride;
  const float* norm = nullptr;  // [inner]: see rms_norm
  float eps = 0;
  bool turned = false;  // without a norm only
};
void packed_product(const PackedProduct& call, const Variant& variant = active_variant());

// Its outputs [begin, end) alone, on this thread; begin is a multiple of 32. Rows are not turned.
void packed_product_outputs(const PackedProduct& call, std::int64_t begin, std::int64_t end,
                            const Variant& variant = active_variant());

// What follows attention in a block, for a few rows at a time that stay in the cache:
//   h = x + output(mixed),   out = h + down(act(gate(norm(h))) * up(norm(h)))
// The same bits as step by step. All rows are contiguous; out may be x.
struct PackedFinish {
  const float* x;      // [rows, hidden]
  const float* mixed;  // [rows, output.inner]
  std::int64_t rows;
  PackedLayer output;  // to hidden
  const float* norm;   // [hidden]
  float eps;
  PackedLayer gate_up;  // hidden to gate | up, each a multiple of 32 wide
  Activation activation;
  PackedLayer down;
  float* out;  // [rows, hidden]
};
void packed_finish(const PackedFinish& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
