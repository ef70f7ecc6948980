// Weights made ready for many products: packed (compress/kernels/packed_product), or as codes, for
// activations rounded to 8 bits (quantized_codes.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "compress/core/weight.h"
#include "compress/kernels/packed_product/packed_product.h"

namespace attar {

class QuantizedCodes;

// How a weight multiplies.
enum class Arithmetic {
  kExact,      // float32 values and activations: what every measurement means
  kQuantized,  // codes as they are times activations rounded to 8 bits, which is faster and moves
               // the result a little (of W8A8 by the last bits of sums alone); weights that are no
               // codes, or on a grid that the kernels do not read, multiply as kExact
};

// The outputs [first, second) of a layer of so many that one of `shares` shares covers, cut at
// multiples of `panel`.
std::pair<std::int64_t, std::int64_t> outputs_of_share(std::int64_t outputs, std::int64_t panel,
                                                       int share, int shares);

// W [O, I] and a bias. A row of a product depends on that row of x alone, to the bit.
class PreparedWeight {
 public:
  PreparedWeight() = default;
  explicit PreparedWeight(const Weight& weight, Arithmetic arithmetic = Arithmetic::kExact) {
    assign({{&weight, {}}}, arithmetic);
  }

  struct Part {
    const Weight* weight;  // [O_i, I]
    at::Tensor bias;       // [O_i] or undefined
  };
  // Layers that read the same input, one below the other. Memory that fits is used again.
  void assign(const std::vector<Part>& parts, Arithmetic arithmetic = Arithmetic::kExact);

  std::int64_t outputs() const { return outputs_; }
  std::int64_t inputs() const { return inputs_; }
  std::int64_t bytes() const;

  // Whether `layer` is what the kernels take; codes are not.
  bool packed() const { return pieces_ > 0; }
  // Whether x must be rounded before it is multiplied with values (QuantScheme::activation_bits):
  // `multiply_into` does, kernels that take `layer` do not. Layers that are multiplied together
  // must agree.
  bool rounds_tokens() const { return token_grid_.has_value(); }
  kernels::PackedLayer layer() const;

  // Null where the weight multiplies exactly.
  const QuantizedCodes* codes() const { return codes_.get(); }
  const float* bias() const;  // [O] or nullptr

  // out [..., O] = x [..., I] W^T + bias + added [..., O]; `added` may be undefined, or `out`.
  // float32, `out` and `added` contiguous.
  at::Tensor multiply_into(at::Tensor out, const at::Tensor& x, const at::Tensor& added = {}) const;

 private:
  bool pack(const std::vector<Part>& parts, int pieces);

  std::int64_t outputs_ = 0;
  std::int64_t inputs_ = 0;
  int pieces_ = 0;  // of a packed matrix; 0: there is none
  kernels::PackType held_ = kernels::PackType::f32;
  std::optional<kernels::TokenGrid> token_grid_;
  at::Tensor values_;                            // packed bytes
  std::shared_ptr<const QuantizedCodes> codes_;  // in place of values_
  at::Tensor bias_;                              // [O] float32, undefined where no part has one
};

}  // namespace attar
