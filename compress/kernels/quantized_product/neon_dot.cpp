#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors_neon.h"

#ifndef __ARM_FEATURE_DOTPROD
#error "built without dot products; see compress/kernels/CMakeLists.txt"
#endif

namespace attar::kernels {

void quantized_product_neon_dot(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<VectorsNeon<true>>(call, task);
}

}  // namespace attar::kernels
