#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors256.h"

namespace attar::kernels {

void quantized_product_avx2(const QuantizedProduct& call, const QuantizedTask& task) {
  if (call.x.by == RoundedBy::token && call.layer.format.bits == 8) {
    return multiply_bits<Vectors256<false, /*kLowest=*/true>, 8>(call, task);
  }
  quantized_product_task<Vectors256<false>>(call, task);
}
void round_rows_avx2(const RoundRows& call, std::int64_t begin, std::int64_t end) {
  round_row_range<Vectors256<false>>(call, begin, end);
}

}  // namespace attar::kernels
