// X_dense X^T: how the inputs that the unchanged model would see go with those that the changed
// one sees. With X X^T (gram.h) it makes every closed-form refit whose target is the dense output:
// the W' that minimises |W X_dense - W' X|^2 is W (X_dense X^T) (X X^T)^-1.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attar::linalg {

// A token that is not finite on either side counts in `dropped` and in nothing else.
struct CrossGram {
  at::Tensor gram;  // [n_dense, n] double: sum of x_dense x^T (not divided by tokens)
  std::int64_t tokens = 0;
  std::int64_t dropped = 0;
  // Of layers that write to the residual stream (BlockStream), [hidden, n] double: sum of (h_dense
  // - h) x^T, h what the layer's output is added to. A refit that adds it to its target also makes
  // up for what the stream has lost before.
  at::Tensor residual = {};
};

// Adds pairs of rows up: products in float32 over steps of GramAccumulator::kStepTokens tokens,
// added in float64, whatever the batches and the threads.
class CrossAccumulator {
 public:
  CrossAccumulator(std::int64_t dense_columns, std::int64_t columns);

  // dense [T, n_dense], changed [T, n], float32 with unit column stride; row t of both is the same
  // token. Not kept.
  void add(const at::Tensor& dense, const at::Tensor& changed);

  // Takes what came so far and leaves the accumulator empty.
  CrossGram finish();

 private:
  void begin();  // makes room for the sums if there is none yet
  void take_step(const float* dense, std::int64_t dense_stride, const float* changed,
                 std::int64_t stride, std::int64_t count);

  std::int64_t dense_columns_, columns_;
  std::int64_t tokens_ = 0, dropped_ = 0;
  std::int64_t pending_count_ = 0;                      // rows that do not fill a step yet
  std::vector<float> pending_dense_, pending_changed_;  // [kStepTokens, n_dense], [.., n]
  at::Tensor total_;                                    // [n_dense, n] float64
};

}  // namespace attar::linalg
