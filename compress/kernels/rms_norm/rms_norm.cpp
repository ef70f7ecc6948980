#include "compress/kernels/rms_norm/rms_norm.h"

#include "compress/kernels/threads.h"

namespace attar::kernels {

void rms_norm(const RmsNorm& call, const Variant& variant) {
  for_row_ranges(call.rows, call.columns,
                 [&](std::int64_t begin, std::int64_t end) { variant.rms_norm(call, begin, end); });
}

void add_rms_norm(const AddRmsNorm& call, const Variant& variant) {
  for_row_ranges(call.rows, call.columns, [&](std::int64_t begin, std::int64_t end) {
    variant.add_rms_norm(call, begin, end);
  });
}

}  // namespace attar::kernels
