#include "compress/kernels/attention_weights/attention_weights.h"

namespace attar::kernels {

void attention_weights(const AttentionWeights& call, const Variant& variant) {
  variant.attention_weights(call);
}

}  // namespace attar::kernels
