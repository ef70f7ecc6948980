#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors_neon.h"

namespace attar::kernels {

void quantized_product_neon(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<VectorsNeon<false>>(call, task);
}
void round_rows_neon(const RoundRows& call, std::int64_t begin, std::int64_t end) {
  round_row_range<VectorsNeon<false>>(call, begin, end);
}

}  // namespace attar::kernels
