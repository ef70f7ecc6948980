#include "compress/kernels/dequantize_affine/dequantize_affine.h"

#include <stdexcept>
#include <string>

#include "compress/kernels/threads.h"

namespace attar::kernels {

void dequantize_affine(const AffineCodes& call, const Variant& variant) {
  if (call.group_size < 1) {
    throw std::invalid_argument("[dequantize_affine] group_size must be at least 1, got " +
                                std::to_string(call.group_size));
  }
  for_row_ranges(call.rows, call.columns, [&](std::int64_t begin, std::int64_t end) {
    variant.dequantize_affine(call, begin, end);
  });
}

}  // namespace attar::kernels
