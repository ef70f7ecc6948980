// Exact causal attention by key tiles with an online softmax (Dao et al. 2022, arXiv:2205.14135;
// Milakov and Gimelshein 2018, arXiv:1805.02867).
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

// One sequence: its last query_count positions ask, all its key_count positions answer.
// Query i sits at absolute position key_count - query_count + i and sees keys up to its own
// position. A KV cache therefore is key_count > query_count; decoding is query_count == 1.
struct AttentionSequence {
  const float* q;            // [query_count, heads * head_dim], rows q_stride floats apart
  const float* k;            // [key_count, kv_heads * head_dim], rows k_stride floats apart
  const float* v;            // [key_count, kv_heads * head_dim], rows v_stride floats apart
  float* out;                // [query_count, heads * head_dim], rows out_stride floats apart
  std::int64_t query_count;  // <= key_count
  std::int64_t key_count;
};

// out = softmax(scale * q kT + causal mask) v for every head; head h reads key-value head
// h / (heads / kv_heads).
//
// Key tiles start at absolute multiples of a fixed size and every sum runs over keys and
// components in ascending order, so a row's bits are the same in one prefill, in pieces behind a
// cached prefix, alone in decoding, and beside other sequences. Keys after a row's position never
// touch it, not even when they are NaN. out must not overlap q, k, v.
struct CausalAttention {
  const AttentionSequence* sequences;  // [sequence_count]
  std::int64_t sequence_count;
  std::int64_t heads;
  std::int64_t kv_heads;  // divides heads
  std::int64_t head_dim;  // 1 .. 256; multiples of 16 are fastest
  std::int64_t q_stride;
  std::int64_t k_stride;
  std::int64_t v_stride;
  std::int64_t out_stride;
  float scale;  // usually 1 / sqrt(head_dim)
};
void causal_attention(const CausalAttention& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
