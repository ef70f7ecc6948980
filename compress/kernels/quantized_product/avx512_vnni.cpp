#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors512.h"

namespace attar::kernels {

void quantized_product_avx512_vnni(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<Vectors512>(call, task);
}

}  // namespace attar::kernels
