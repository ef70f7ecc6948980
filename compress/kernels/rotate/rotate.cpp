#include "compress/kernels/rotate/rotate.h"

#include <stdexcept>
#include <string>

#include "compress/kernels/threads.h"

namespace attar::kernels {

void rotate(const Rotate& call, const Variant& variant) {
  for (std::int64_t t = 0; t < call.tokens; ++t) {
    const std::int64_t position = call.positions ? call.positions[t] : call.first_position + t;
    if (position < 0 || position >= call.table_positions) {
      throw std::invalid_argument("[rotate] position must be in [0, " +
                                  std::to_string(call.table_positions) + "), got " +
                                  std::to_string(position) + " at token " + std::to_string(t) +
                                  "; make a longer cos/sin table");
    }
  }
  for_row_ranges(call.tokens, call.heads * call.head_dim,
                 [&](std::int64_t begin, std::int64_t end) { variant.rotate(call, begin, end); });
}

}  // namespace attar::kernels
