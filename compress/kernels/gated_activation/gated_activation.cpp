#include "compress/kernels/gated_activation/gated_activation.h"

#include "compress/kernels/threads.h"

namespace attar::kernels {

void gated_activation(const GatedActivation& call, const Variant& variant) {
  for_row_ranges(call.rows, call.columns, [&](std::int64_t begin, std::int64_t end) {
    variant.gated_activation(call, begin, end);
  });
}

void gated_activation_gradient(const GatedActivationGradient& call, const Variant& variant) {
  for_row_ranges(call.rows, call.columns, [&](std::int64_t begin, std::int64_t end) {
    variant.gated_activation_gradient(call, begin, end);
  });
}

}  // namespace attar::kernels
