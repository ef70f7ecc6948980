#include "compress/kernels/response_loss/response_loss.h"

#include <stdexcept>
#include <vector>

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
    std::vector<float> scratch(static_cast<std::size_t>(3 * call.vocabulary));
    for (std::int64_t r = begin; r < end; ++r) variant.response_loss(call, r, scratch.data());
  });
}

}  // namespace attar::kernels
