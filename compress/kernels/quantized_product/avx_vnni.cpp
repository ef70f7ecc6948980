#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors256.h"

namespace attar::kernels {

void quantized_product_avx_vnni(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<Vectors256<true>>(call, task);
}

}  // namespace attar::kernels
