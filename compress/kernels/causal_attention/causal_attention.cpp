#include "compress/kernels/causal_attention/causal_attention.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "compress/kernels/causal_attention/task.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

void check(bool holds, const std::string& rule, std::int64_t got) {
  if (holds) return;
  throw std::invalid_argument("[causal_attention] " + rule + ", got " + std::to_string(got));
}

void check_call(const CausalAttention& call) {
  check(call.head_dim >= 1 && call.head_dim <= kMaxHeadDim, "head_dim must be in [1, 256]",
        call.head_dim);
  check(call.kv_heads >= 1 && call.heads % call.kv_heads == 0, "kv_heads must divide heads",
        call.kv_heads);
  const int bits = call.coded.bits;
  check(bits == 0 || bits == 4 || bits == 8, "codes must have 4 or 8 bits", bits);
  check(bits == 0 || call.head_dim % 2 == 0, "head_dim of coded keys must be even", call.head_dim);
  for (std::int64_t s = 0; s < call.sequence_count; ++s) {
    check(call.sequences[s].query_count <= call.sequences[s].key_count,
          "query_count must not exceed key_count in sequence " + std::to_string(s),
          call.sequences[s].query_count);
  }
}

// Heads that share a key-value head go together, so that a key tile is packed once for them.
// Later queries see more keys; they come first, so that threads end together.
std::vector<AttentionTask> cut_into_tasks(const CausalAttention& call) {
  const std::int64_t group = call.heads / call.kv_heads;
  const std::int64_t heads = std::min<std::int64_t>(group, 32);
  const std::int64_t queries = kMaxTaskRows / heads;
  std::vector<AttentionTask> tasks;
  for (std::int64_t s = 0; s < call.sequence_count; ++s) {
    for (std::int64_t end = call.sequences[s].query_count; end > 0; end -= queries) {
      for (std::int64_t kv = 0; kv < call.kv_heads; ++kv) {
        for (std::int64_t h = kv * group; h < (kv + 1) * group; h += heads) {
          tasks.push_back({s, h, std::min(h + heads, (kv + 1) * group),
                           std::max<std::int64_t>(0, end - queries), end});
        }
      }
    }
  }
  return tasks;
}

std::int64_t multiplications(const CausalAttention& call) {
  std::int64_t pairs = 0;
  for (std::int64_t s = 0; s < call.sequence_count; ++s) {
    pairs += call.sequences[s].query_count * call.sequences[s].key_count;
  }
  return 2 * pairs * call.heads * call.head_dim;
}

}  // namespace

void causal_attention(const CausalAttention& call, const Variant& variant) {
  check_call(call);
  const std::vector<AttentionTask> tasks = cut_into_tasks(call);
  const std::int64_t count = static_cast<std::int64_t>(tasks.size());
  const bool shared = count > 1 && multiplications(call) >= kSharedProduct;
#pragma omp parallel for schedule(dynamic, 1) if (shared)
  for (std::int64_t i = 0; i < count; ++i) {
    variant.causal_attention(call, tasks[static_cast<std::size_t>(i)]);
  }
}

}  // namespace attar::kernels
