// A piece of one attention call that one thread does at one go.
#pragma once

#include <cstdint>

namespace attar::kernels {

inline constexpr std::int64_t kKeyTile = 64;         // keys between two updates of the softmax
inline constexpr std::int64_t kMaxTaskRows = 96;     // (query, head) pairs in a task
inline constexpr std::int64_t kMaxVectorWidth = 16;  // of any variant, in floats

// The queries [query_begin, query_end) of the heads [head_begin, head_end), which share one
// key-value head. Rows are (query, head) pairs, heads within queries, at most kMaxTaskRows.
struct AttentionTask {
  std::int64_t sequence;
  std::int64_t head_begin;
  std::int64_t head_end;
  std::int64_t query_begin;
  std::int64_t query_end;
};

}  // namespace attar::kernels
