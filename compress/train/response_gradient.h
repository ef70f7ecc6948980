// Hidden states -> logits -> loss -> gradient, a chunk of rows at a time: tokens x vocabulary is
// never held whole, and logits are computed once for loss and gradient together.
//
// Shapes: R rows (tokens), H hidden, V vocabulary; float32 unless it says otherwise.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "compress/kernels/response_loss/response_loss.h"

namespace attar {

using kernels::ResponseKind;
using kernels::ResponseTerm;

// What the rows are held against.
struct ResponseTargets {
  at::Tensor tokens;  // [R] int64; negative: the row does not count

  // A teacher that is run along: its normalised hidden states and its head, rows in the order of
  // the student's vocabulary. Undefined without one.
  at::Tensor teacher_hidden;  // [R, H']
  at::Tensor teacher_head;    // [V, H']

  // A teacher that was written down (kernels::SparseTeacher). Undefined without one.
  at::Tensor sparse_ids;            // [R, K] int32
  at::Tensor sparse_probabilities;  // [R, K]
  bool sparse_tail = true;
};

struct ResponseGradient {
  at::Tensor hidden;           // [R, H]: scale * gradient of sum(weight * loss)
  std::vector<double> losses;  // [terms]: sums over the rows that count, without weight and scale
};

// `head` [V, H] makes the logits of `hidden` [R, H]; `head_gradient` [V, H] is added to, unless it
// is undefined. Chunks of kResponseRows rows: a fixed number, so that sums have one order.
inline constexpr std::int64_t kResponseRows = 256;
ResponseGradient response_gradient(const at::Tensor& hidden, const at::Tensor& head,
                                   const at::Tensor& head_gradient, const ResponseTargets& targets,
                                   std::span<const ResponseTerm> terms, double scale);

}  // namespace attar
