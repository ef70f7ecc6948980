// One task of attention, once for every instruction set S.
#pragma once

#include "compress/kernels/causal_attention/blocks.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/causal_attention/coded_tile.h"
#include "compress/kernels/simd/math.h"

namespace attar::kernels {

// Running state of the rows of a task: weighted sums of values, sums of weights (one a lane), and
// the largest score so far.
struct AttentionRows {
  alignas(64) float keys[kMaxHeadDim * kKeyTile];  // one tile, [head_dim, kKeyTile]
  alignas(64) float sums[kMaxTaskRows * kMaxHeadDim];
  alignas(64) float weight_sums[kMaxTaskRows * kMaxVectorWidth];
  float largest[kMaxTaskRows];
  const float* queries[kMaxTaskRows];
  std::int64_t limit[kMaxTaskRows];  // keys that the row sees, counted from key 0
};

// packed[d][key] = keys[key][d]; keys past `count` become zeros up to a whole vector.
template <class S>
ATTAR_INLINE void pack_keys(const float* keys, std::int64_t key_stride, std::int64_t count,
                            std::int64_t head_dim, float* packed) {
  constexpr int W = S::kWidth;
  std::int64_t key = 0;
  for (; key + W <= count; key += W) {
    const float* from = keys + key * key_stride;
    std::int64_t d = 0;
    for (; d + 4 <= head_dim; d += 4) {
      S::transpose_four(from + d, key_stride, packed + d * kKeyTile + key, kKeyTile);
    }
    for (; d < head_dim; ++d) {
      for (int i = 0; i < W; ++i) packed[d * kKeyTile + key + i] = from[i * key_stride + d];
    }
  }
  if (key == count) return;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    for (int i = 0; i < W; ++i) {
      packed[d * kKeyTile + key + i] = key + i < count ? keys[(key + i) * key_stride + d] : 0.0f;
    }
  }
}

// Turns one row of scores into weights exp(score - largest), zero from `count` on up to `vectors`
// whole vectors; keeps the running maximum and sums; returns what earlier sums shrink by.
template <class S>
ATTAR_INLINE float weigh_row(float* scores, std::int64_t count, std::int64_t vectors, float scale,
                             float* largest, float* weight_sums) {
  constexpr int W = S::kWidth;
  constexpr float kNothing = -__builtin_inff();
  auto top = S::broadcast(kNothing);
  for (std::int64_t n = 0; n < vectors; ++n) {
    auto score = S::mul(S::load(scores + n * W), S::broadcast(scale));
    if ((n + 1) * W > count) score = S::keep_first(score, count - n * W, kNothing);
    S::store(scores + n * W, score);
    top = S::max(top, score);
  }
  const float before = *largest;
  const float tile = S::largest(top);
  const float after = before > tile ? before : tile;
  *largest = after;
  float lanes[W];
  S::store(lanes, exponential<S>(S::broadcast(before - after)));
  const float decay = before == after ? 1.0f : lanes[0];
  auto sum = S::mul(S::load(weight_sums), S::broadcast(decay));
  for (std::int64_t n = 0; n < vectors; ++n) {
    const auto weight = exponential<S>(S::sub(S::load(scores + n * W), S::broadcast(after)));
    S::store(scores + n * W, weight);
    sum = S::add(sum, weight);
  }
  S::store(weight_sums, sum);
  return decay;
}

// M rows against the tile of `count` keys that starts at key_begin; every row sees at least one.
template <class S, int M>
void attend_block(AttentionRows& rows, std::int64_t row, std::int64_t key_begin, std::int64_t count,
                  const float* values, std::int64_t value_stride, std::int64_t head_dim,
                  std::int64_t stride, float scale) {
  constexpr int W = S::kWidth;
  alignas(64) float scores[M * kKeyTile];
  float decay[M];
  std::int64_t seen[M];
  for (int r = 0; r < M; ++r) {
    const std::int64_t limit = rows.limit[row + r] - key_begin;
    seen[r] = limit < count ? limit : count;
  }
  const std::int64_t vectors = (seen[M - 1] + W - 1) / W;
  score_rows<S, M>(rows.queries + row, rows.keys, head_dim, vectors, scores);
  for (int r = 0; r < M; ++r) {
    decay[r] = weigh_row<S>(scores + r * kKeyTile, seen[r], vectors, scale, rows.largest + row + r,
                            rows.weight_sums + (row + r) * W);
  }
  float* sums = rows.sums + row * stride;
  value_rows<S, M>(scores, values, value_stride, 0, seen[0], decay, sums, stride, head_dim);
  const float keep = 1.0f;
  for (int r = 1; r < M; ++r) {  // keys that only the later rows see
    if (seen[r] == seen[0]) continue;
    value_rows<S, 1>(scores + r * kKeyTile, values, value_stride, seen[0], seen[r], &keep,
                     sums + r * stride, stride, head_dim);
  }
}

template <class S>
ATTAR_INLINE void attend_rows(AttentionRows& rows, std::int64_t row, std::int64_t end,
                              std::int64_t key_begin, std::int64_t count, const float* values,
                              std::int64_t value_stride, std::int64_t head_dim, std::int64_t stride,
                              float scale) {
  constexpr int B = S::kBlockRows;
  static_assert(B == 4 || B == 6);
  const auto block = [&](auto attend, std::int64_t size) {
    attend(rows, row, key_begin, count, values, value_stride, head_dim, stride, scale);
    row += size;
  };
  while (end - row >= B) block(attend_block<S, B>, B);
  switch (end - row) {
    case 5:
      block(attend_block<S, B - 1>, 5);
      break;  // only where B is 6
    case 4:
      block(attend_block<S, 4>, 4);
      break;
    case 3:
      block(attend_block<S, 3>, 3);
      break;
    case 2:
      block(attend_block<S, 2>, 2);
      break;
    case 1:
      block(attend_block<S, 1>, 1);
      break;
    default:
      break;
  }
}

template <class S>
ATTAR_INLINE void write_row(const float* sums, const float* weight_sums, std::int64_t head_dim,
                            float* out) {
  constexpr int W = S::kWidth;
  const auto total = S::broadcast(S::sum(S::load(weight_sums)));
  for (std::int64_t c = 0; c < head_dim; c += W) {
    const auto mean = S::div(S::load(sums + c), total);
    if (c + W <= head_dim) {
      S::store(out + c, mean);
    } else {
      S::store_first(out + c, mean, head_dim - c);
    }
  }
}

// The keys [begin, begin + count) and values of one key-value head as floats.
struct FloatTile {
  const float* keys;
  const float* values;
  std::int64_t key_stride;
  std::int64_t value_stride;
};

// Rows of one head lie a whole token apart, too far for the processor to guess the next: asks for
// `count` of them.
ATTAR_INLINE void prefetch_rows(const float* first, std::int64_t stride, std::int64_t count,
                                std::int64_t head_dim) {
  constexpr std::int64_t kFloatsOfLine = 16;
  for (std::int64_t key = 0; key < count; ++key) {
    for (std::int64_t d = 0; d < head_dim; d += kFloatsOfLine) {
      __builtin_prefetch(first + key * stride + d, 0, 3);
    }
  }
}

// Every tile, against the rows that see it.
template <class S, bool kStreams, class Tiles>
ATTAR_INLINE void attend_tiles(AttentionRows& rows, std::int64_t count, std::int64_t key_end,
                               std::int64_t head_dim, std::int64_t stride, float scale,
                               const Tiles& tiles) {
  std::int64_t first = 0;  // the first row that sees the tile
  for (std::int64_t key = 0; key < key_end; key += kKeyTile) {
    const std::int64_t keys = key_end - key < kKeyTile ? key_end - key : kKeyTile;
    while (rows.limit[first] <= key) ++first;
    const FloatTile tile = tiles(key, keys);
    if constexpr (kStreams) {
      const std::int64_t next = key_end - key - keys < kKeyTile ? key_end - key - keys : kKeyTile;
      prefetch_rows(tile.keys + keys * tile.key_stride, tile.key_stride, next, head_dim);
      prefetch_rows(tile.values + keys * tile.value_stride, tile.value_stride, next, head_dim);
    }
    pack_keys<S>(tile.keys, tile.key_stride, keys, head_dim, rows.keys);
    attend_rows<S>(rows, first, count, key, keys, tile.values, tile.value_stride, head_dim, stride,
                   scale);
  }
}

template <class S>
void attend_coded(const CausalAttention& call, const AttentionSequence& sequence, std::int64_t head,
                  AttentionRows& rows, std::int64_t count, std::int64_t key_end,
                  std::int64_t stride) {
  CodedTiles<S> tiles(call, sequence, head);
  attend_tiles<S, false>(rows, count, key_end, call.head_dim, stride, call.scale,
                         [&](std::int64_t begin, std::int64_t keys) -> FloatTile {
                           tiles.decode(begin, keys);
                           return {tiles.keys, tiles.values, tiles.stride, tiles.stride};
                         });
}

template <class S>
void attend_task(const CausalAttention& call, const AttentionTask& task) {
  constexpr int W = S::kWidth;
  const AttentionSequence& sequence = call.sequences[task.sequence];
  const std::int64_t D = call.head_dim;
  const std::int64_t stride = (D + W - 1) / W * W;
  const std::int64_t heads = task.head_end - task.head_begin;
  const std::int64_t count = heads * (task.query_end - task.query_begin);
  const std::int64_t kv_head = task.head_begin / (call.heads / call.kv_heads);

  AttentionRows rows;
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t query = task.query_begin + r / heads;
    const std::int64_t head = task.head_begin + r % heads;
    rows.queries[r] = sequence.q + query * call.q_stride + head * D;
    rows.limit[r] = sequence.key_count - sequence.query_count + query + 1;
    rows.largest[r] = -__builtin_inff();
    for (std::int64_t c = 0; c < stride; c += W) {
      S::store(rows.sums + r * stride + c, S::broadcast(0.0f));
    }
    S::store(rows.weight_sums + r * W, S::broadcast(0.0f));
  }
  const std::int64_t key_end = sequence.key_count - sequence.query_count + task.query_end;
  if (call.coded.bits == 0) {
    attend_tiles<S, true>(rows, count, key_end, D, stride, call.scale,
                          [&](std::int64_t begin, std::int64_t) -> FloatTile {
                            return {sequence.k + begin * call.k_stride + kv_head * D,
                                    sequence.v + begin * call.v_stride + kv_head * D, call.k_stride,
                                    call.v_stride};
                          });
  } else {
    attend_coded<S>(call, sequence, kv_head, rows, count, key_end, stride);
  }
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t query = task.query_begin + r / heads;
    const std::int64_t head = task.head_begin + r % heads;
    write_row<S>(rows.sums + r * stride, rows.weight_sums + r * W, D,
                 sequence.out + query * call.out_stride + head * D);
  }
}

}  // namespace attar::kernels
