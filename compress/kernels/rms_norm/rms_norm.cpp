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

void rms_norm_gradient(const RmsNormGradient& call, const Variant& variant) {
  constexpr std::int64_t kRows = RmsNormGradient::kPartRows;
  for_row_ranges(
      (call.rows + kRows - 1) / kRows, kRows * call.columns,
      [&](std::int64_t begin, std::int64_t end) { variant.rms_norm_gradient(call, begin, end); });
}

}  // namespace attar::kernels
