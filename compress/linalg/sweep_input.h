// What a compensating sweep (GPTQ, SparseGPT) works out once for all layers that read one input (q,
// k and v; gate and up), and what each of them is to become.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "compress/linalg/cross_gram.h"
#include "compress/linalg/sweep_hessian.h"

namespace attar::linalg {

struct SweepInputOptions {
  bool act_order = false;
  double damping = 0.01;
  double towards_dense = 0;  // how far from the weight to the one that gives the dense outputs
  bool follow = true;        // whose target holds CrossGram::residual as well
};

class SweepInput {
 public:
  // gram [I, I] double, X X^T. `cross` is used up, and may be null: layers aim at what they are.
  // Throws as prepare_hessian does.
  SweepInput(const at::Tensor& gram, CrossGram* cross, const SweepInputOptions& options,
             std::string_view where);

  const SweepHessian& hessian() const { return hessian_; }

  // What a layer is to become, [O, I] float32. Without a cross, `now`. With one, a share of the way
  // from W to the W' that minimises |W X_dense + R - W' X|^2 + d |W' - W|^2, R what the residual
  // stream has lost and d the damping: W' - W = (W (X_dense X^T - X X^T) + R X^T) (X X^T + d I)^-1
  // (Qronos, Zhang et al. 2025, arXiv:2505.11695). Never further from W than 0.3 of its length:
  // that is where little text says much. W itself where H was not factored. GPTAQ (Li et al. 2025,
  // arXiv:2504.02692) walks towards the same minimum column by column; on the oracle's example it
  // ends further from it (tests/quantize/golden_test.cpp).
  //   now       [O, I] float32, the layer as it is
  //   original  [O, I] float32, W: as the unchanged model has it. What a pass before made of it
  //             takes no part in the aim, or its own would count twice
  //   keep      [O, I] bool or undefined: what a mask leaves. What is aimed at is then the nearest,
  //             under the damped H, to W' under the mask
  at::Tensor aim(const at::Tensor& now, const at::Tensor& original,
                 const at::Tensor& keep = {}) const;

  // After the last aim: gives back the memory that only aims need.
  void done_aiming() { lost_ = residual_ = at::Tensor(); }

 private:
  at::Tensor towards_dense(const at::Tensor& original) const;

  SweepHessian hessian_;
  double share_;
  at::Tensor lost_;      // X_dense X^T - X X^T, [I, I] float32; undefined without a cross
  at::Tensor residual_;  // R X^T, [O, I] float32; or undefined
};

}  // namespace attar::linalg
