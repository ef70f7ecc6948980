// Keys and values of a block: the room that they take, and how they become codes.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/coded_heads/coded_heads.h"
#include "compress/kernels/rotate/rotate.h"

namespace attar {

CacheType cache_type(std::int64_t bits, std::string_view where) {
  require<UsageError>(bits == 32 || bits == 8 || bits == 4, where,
                      "kv_bits must be 32 (float32), 8 or 4, got ", bits);
  return bits == 32 ? CacheType::kFloat32 : bits == 8 ? CacheType::kCodes8 : CacheType::kCodes4;
}

int BlockRunner::code_bits() const {
  return cache_type_ == CacheType::kCodes8 ? 8 : cache_type_ == CacheType::kCodes4 ? 4 : 0;
}

std::int64_t BlockRunner::token_codes() const {
  return config_.kv_heads * kernels::coded_head_bytes(config_.head_dim, code_bits());
}

// Grows by doubling.
void BlockRunner::reserve(KeyValues& cache, std::int64_t tokens) const {
  const std::int64_t capacity = cache.keys.defined() ? cache.keys.size(0) : 0;
  if (capacity >= tokens) return;
  const std::int64_t grown = capacity == 0 ? tokens : std::max(tokens, 2 * capacity);
  const bool coded = code_bits() != 0;
  const auto larger = [&](const at::Tensor& old) {
    at::Tensor fresh = at::empty({grown, coded ? token_codes() : config_.kv_width()},
                                 coded ? at::kByte : at::kFloat);
    if (cache.length > 0) fresh.narrow(0, 0, cache.length).copy_(old.narrow(0, 0, cache.length));
    return fresh;
  };
  cache.keys = larger(cache.keys);
  cache.values = larger(cache.values);
}

kernels::CodedAttention BlockRunner::coded_attention() const {
  if (code_bits() == 0) return {};
  return {code_bits(), token_codes(),
          key_bias_.defined() ? key_bias_.const_data_ptr<float>() : nullptr,
          rope_.cos.const_data_ptr<float>(), rope_.sin.const_data_ptr<float>()};
}

void BlockRunner::take_bias_off(float* keys, std::int64_t stride, std::int64_t length,
                                std::int64_t head, std::int64_t heads,
                                std::int64_t first_position) const {
  if (!key_bias_.defined()) return;
  thread_local std::vector<float> turned;
  const std::int64_t dim = config_.head_dim, width = heads * dim;
  const float* bias = key_bias_.const_data_ptr<float>() + head * dim;
  for (std::int64_t t = 0; t < length; ++t) {
    turned.assign(bias, bias + width);
    kernels::rotate({turned.data(), width, 1, heads, dim, dim, rope_.cos.const_data_ptr<float>(),
                     rope_.sin.const_data_ptr<float>(), rope_.cos.size(0), first_position + t});
    float* row = keys + t * stride;
    for (std::int64_t i = 0; i < width; ++i) row[i] -= turned[static_cast<std::size_t>(i)];
  }
}

void BlockRunner::encode(float* rows, std::int64_t length, std::int64_t first_position,
                         std::uint8_t* keys, std::uint8_t* values) const {
  const std::int64_t width = config_.q_width() + 2 * config_.kv_width();
  float* from = rows + config_.q_width();
  take_bias_off(from, width, length, 0, config_.kv_heads, first_position);
  kernels::mix_channels(rows,
                        {width, length, config_.heads + 2 * config_.kv_heads, config_.head_dim});
  const kernels::HeadRows heads{width, length, config_.kv_heads, config_.head_dim};
  kernels::code_heads(from, heads, code_bits(), keys, token_codes());
  kernels::code_heads(from + config_.kv_width(), heads, code_bits(), values, token_codes());
}

}  // namespace attar
