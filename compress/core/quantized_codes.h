// Weights as the codes that the file holds, packed for the kernels that multiply them with
// activations rounded to 8 bits (compress/kernels/quantized_product).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "compress/core/prepared_weight.h"
#include "compress/kernels/quantized_product/quantized_product.h"

namespace attar {

// Several layers that read the same input, one below the other. A row of a product depends on that
// row of x alone, to the bit, and has the same bits on every instruction set.
class QuantizedCodes {
 public:
  // Null unless every part multiplies as codes.
  static std::shared_ptr<const QuantizedCodes> pack(const std::vector<PreparedWeight::Part>& parts);

  std::int64_t inputs() const { return inputs_; }
  // By token where the layers ask for it (QuantScheme::activation_bits): then one product is the
  // exact one up to the rounding of float32 sums.
  kernels::RoundedBy rounded_by() const { return rounded_by_; }
  std::int64_t bytes() const;

  // Where a product goes: out [rows, O] = x W^T + bias + added, rows `stride` floats apart; `bias`
  // and `added` may be nullptr, `added` may be `out`.
  struct Output {
    float* out;
    std::int64_t stride;
    const float* bias;
    const float* added;
  };
  // Rounds x [rows, I], rows x_stride floats apart, and multiplies, on all threads.
  void multiply(const float* x, std::int64_t x_stride, std::int64_t rows, const Output& to) const;

  // One of `shares` parts of every layer's outputs, on this thread. Layers of the same height are
  // cut at the same outputs.
  void multiply_share(const kernels::RoundedRows& x, const Output& to, int share, int shares) const;

 private:
  struct Segment {
    at::Tensor memory;
    kernels::QuantizedLayer layer;
    std::int64_t first;  // its first output among all
  };
  std::int64_t inputs_ = 0;
  kernels::RoundedBy rounded_by_ = kernels::RoundedBy::block;
  std::vector<Segment> segments_;
};

// Rounded rows in memory of their own, grown as needed.
class RoundedMemory {
 public:
  // x [rows, codes.inputs()], rows `stride` floats apart, as `codes` multiply them; valid until the
  // next call. Rounds on all threads, or on this one when it is a thread of a team.
  kernels::RoundedRows round(const QuantizedCodes& codes, const float* x, std::int64_t stride,
                             std::int64_t rows);

 private:
  at::Tensor held_;
};

}  // namespace attar
