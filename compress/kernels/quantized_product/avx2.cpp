#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors256.h"

namespace attar::kernels {

void quantized_product_avx2(const QuantizedProduct& call, const QuantizedTask& task) {
  quantized_product_task<Vectors256<false>>(call, task);
}
void round_rows_avx2(const RoundRows& call, std::int64_t begin, std::int64_t end) {
  round_row_range<Vectors256<false>>(call, begin, end);
}

}  // namespace attar::kernels
