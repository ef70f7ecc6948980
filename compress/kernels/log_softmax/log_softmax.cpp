#include "compress/kernels/log_softmax/log_softmax.h"

#include <stdexcept>
#include <string>

#include "compress/kernels/threads.h"

namespace attar::kernels {

void log_softmax_stats(const LogSoftmaxStats& call, const Variant& variant) {
  for (std::int64_t r = 0; call.targets && r < call.rows; ++r) {
    if (call.targets[r] >= call.vocabulary) {
      throw std::invalid_argument("[log_softmax_stats] target must be below the vocabulary of " +
                                  std::to_string(call.vocabulary) + ", got " +
                                  std::to_string(call.targets[r]) + " in row " + std::to_string(r));
    }
  }
  for_row_ranges(call.rows, call.vocabulary, [&](std::int64_t begin, std::int64_t end) {
    variant.log_softmax_stats(call, begin, end);
  });
}

void divergence(const Divergence& call, const Variant& variant) {
  for_row_ranges(call.rows, call.vocabulary, [&](std::int64_t begin, std::int64_t end) {
    variant.divergence(call, begin, end);
  });
}

}  // namespace attar::kernels
