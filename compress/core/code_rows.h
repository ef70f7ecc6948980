// A quantized weight as the kernels that multiply codes read it
// (compress/kernels/quantized_product).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/core/weight.h"
#include "compress/kernels/quantized_product/quantized_product.h"

namespace attar {

// Whether the kernels read the grid of a weight: 2 to 8 bits, inputs multiples of 32, groups of 16
// (up to 6 bits) or multiples of 32. Among them are all searched types of GGUF, and MXFP4.
bool multiplies_as_codes(const Weight& weight);

// Rows of such a weight, and what they take beside it: numbers of super-blocks apart, places in a
// table.
class CodeRows {
 public:
  explicit CodeRows(const QuantizedWeight& weight);
  CodeRows(const CodeRows&) = delete;
  CodeRows& operator=(const CodeRows&) = delete;

  // Valid as long as this.
  const kernels::GridRows& rows() const { return rows_; }

 private:
  void find_places();
  void double_levels();
  void find_supers(BlockGrid block);

  at::Tensor codes_, scale_, zero_;
  std::vector<float> d_, m_;
  std::vector<std::int8_t> a_, b_;
  kernels::GridRows rows_;
};

}  // namespace attar
