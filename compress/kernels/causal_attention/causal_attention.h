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
  // In place of k and v where the call says so: [key_count] tokens of coded heads.
  const std::uint8_t* k_codes = nullptr;
  const std::uint8_t* v_codes = nullptr;
};

// Keys and values as code_heads wrote them (coded_heads.h); queries must have been mixed like the
// keys, and `out` is to be mixed by the caller. A tile of a head at a time is decoded.
struct CodedAttention {
  int bits = 0;             // 8 or 4; 0: k and v are floats
  std::int64_t stride = 0;  // bytes from one token to the next
  // A bias that was taken off the keys before they were coded, turned to each one's position. It
  // may be many times as large as what the keys differ by (Qwen2's is). nullptr: none.
  const float* key_bias = nullptr;  // [kv_heads * head_dim], as it stands before rotation
  const float* cosines = nullptr;   // [key_count or more, head_dim / 2]
  const float* sines = nullptr;
};

inline constexpr std::int64_t kMaxHeadDim = 256;

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
  std::int64_t head_dim;  // 1 .. kMaxHeadDim; multiples of 16 are fastest
  std::int64_t q_stride;
  std::int64_t k_stride;
  std::int64_t v_stride;
  std::int64_t out_stride;
  float scale;  // usually 1 / sqrt(head_dim)
  CodedAttention coded = {};
};
void causal_attention(const CausalAttention& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
