// Weights made ready for many products: as dense float32 for the BLAS, or in the pieces that the
// processor's tile instructions multiply (compress/kernels/split_product), where it has them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attar {

// W [O, I]. A row of a product depends on that row of x alone, to the bit.
class PreparedWeight {
 public:
  PreparedWeight() = default;
  // Layers that read the same input, one below the other: float32 [O_i, I] each.
  explicit PreparedWeight(const std::vector<at::Tensor>& parts);

  std::int64_t outputs() const { return outputs_; }
  std::int64_t inputs() const { return inputs_; }
  std::int64_t bytes() const;

  // out [..., O] = x [..., I] W^T + bias [O] + added [..., O]; the last two may be undefined, and
  // `added` may be `out`. float32, `out` and `added` contiguous.
  at::Tensor multiply_into(at::Tensor out, const at::Tensor& x, const at::Tensor& bias = {},
                           const at::Tensor& added = {}) const;

 private:
  bool pack(const std::vector<at::Tensor>& parts, int pieces);

  std::int64_t outputs_ = 0;
  std::int64_t inputs_ = 0;
  int pieces_ = 0;     // 0: values_ is dense
  at::Tensor values_;  // [O, I] float32, or packed bytes
};

}  // namespace attar
