#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors512.h"

namespace attar::kernels {

void round_rows_avx512(const RoundRows& call, std::int64_t begin, std::int64_t end) {
  round_row_range<Vectors512>(call, begin, end);
}

}  // namespace attar::kernels
