#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors_neon.h"

namespace attar::kernels {

void quantized_product_neon_dot(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<VectorsNeon<true>>(call, task);
}

}  // namespace attar::kernels
