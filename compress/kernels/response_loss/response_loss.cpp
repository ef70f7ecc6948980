#include "compress/kernels/response_loss/response_loss.h"

#include <stdexcept>

#include "compress/kernels/scratch.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {

void response_loss(const ResponseLoss& call, const Variant& variant) {
  for (std::int64_t r = 0; r < call.rows; ++r) {
    bool known = call.targets[r] < call.vocabulary;
    for (std::int64_t i = 0; i < call.sparse.count; ++i) {
      known = known && call.sparse.ids[r * call.sparse.count + i] < call.vocabulary;
    }
    if (!known) throw std::invalid_argument("[response_loss] a token id exceeds the vocabulary");
  }
  for_row_ranges(call.rows, call.vocabulary, [&](std::int64_t begin, std::int64_t end) {
    auto* scratch = reinterpret_cast<float*>(thread_scratch(3 * call.vocabulary * 4));
    for (std::int64_t r = begin; r < end; ++r) variant.response_loss(call, r, scratch);
  });
}

}  // namespace attar::kernels
