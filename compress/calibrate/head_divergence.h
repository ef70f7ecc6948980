// How far a model's predictions are from its teacher's on a few windows of text, asked many times
// with other hidden states: what a search over blocks needs.
#pragma once

#include <ATen/core/Tensor.h>

#include "compress/core/model.h"
#include "compress/core/pass.h"

namespace attar {

class HeadDivergence {
 public:
  //   hidden  [N, T, hidden] float32: the teacher's, after its last block
  HeadDivergence(const Model& teacher, at::Tensor hidden);

  // Mean KL(teacher || model) in nats over all positions but the last of each window; `hidden` as
  // above, of the model whose final norm and head are the teacher's.
  double mean(const at::Tensor& hidden, const RunContext& context) const;

 private:
  at::Tensor normed(const at::Tensor& hidden, std::int64_t window) const;

  at::Tensor head_, final_norm_;  // [vocabulary, hidden], [hidden]
  double eps_;
  at::Tensor teacher_;  // [N, T, hidden]
};

}  // namespace attar
