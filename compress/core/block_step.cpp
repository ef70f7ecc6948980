// A block for one token: the weights stream by once, and what one thread waits for another is
// counted in microseconds. So one team of threads does all of the steps, small vectors are computed
// by each thread for itself, and only five barriers are left.
#include <omp.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/core/quantized_codes.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/coded_heads/coded_heads.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/threads.h"

namespace attar {

// Rows that the threads of a team share; each is written by all of them, a part each.
struct BlockRunner::StepRows {
  const float* x;
  float* qkv;
  float* mixed;
  float* attended;
  float* gate_up;
  float* gated;
  float* out;
  KeyValues* cache;  // with the room for this token, which its length counts already
};

namespace {

constexpr std::int64_t kPackedPanel = 32;  // outputs that packed weights are cut at

// Whether threads can share the outputs of `layers` layers of one height.
bool shares_out(const PreparedWeight& weight, int layers) {
  if (weight.codes()) return true;
  return weight.packed() && !weight.rounds_tokens() &&
         (layers == 1 || weight.outputs() / layers % kPackedPanel == 0);
}

}  // namespace

bool BlockRunner::steps_alone(const at::Tensor& x, const KeyValues* cache) const {
  const bool attention = !config_.attends() || (shares_out(qkv_, 1) && shares_out(output_, 1));
  return cache != nullptr && x.numel() == config_.hidden && x.is_contiguous() && attention &&
         shares_out(gate_up_, 2) && shares_out(down_, 1);
}

void BlockRunner::step(const float* x, KeyValues& cache, float* out) const {
  require(cache.length < cache.keys.size(0), "attention",
          "a cache continues one sequence within its capacity");
  require(cache.length < rope_.cos.size(0), "attention", "a sequence of ", cache.length + 1,
          " tokens exceeds the ", rope_.cos.size(0), " positions prepared");
  const StepRows rows{x,
                      memory_->floats(ForwardMemory::kProjected, qkv_.outputs()),
                      memory_->floats(ForwardMemory::kMixed, config_.q_width()),
                      memory_->floats(ForwardMemory::kHidden, config_.hidden),
                      memory_->floats(ForwardMemory::kGateUp, 2 * config_.ffn),
                      memory_->floats(ForwardMemory::kGated, config_.ffn),
                      out,
                      &cache};
  ++cache.length;
  const bool shared = 3 * config_.hidden * config_.ffn >= kernels::kSharedProduct;
#pragma omp parallel num_threads(shared ? threads() : 1) if (shared && !omp_in_parallel())
  step_share(rows, omp_get_thread_num(), omp_get_num_threads());
}

namespace {

// What a thread of the team multiplies: a row, or its norm.
struct RowInput {
  const float* x;
  const float* norm = nullptr;
  double eps = 0;
};

// As `codes` read it, in memory of this thread.
kernels::RoundedRows rounded(const RowInput& input, const QuantizedCodes& codes) {
  thread_local std::vector<float> normed;
  thread_local RoundedMemory memory;
  const std::int64_t columns = codes.inputs();
  if (!input.norm) return memory.round(codes, input.x, columns, 1);
  normed.resize(static_cast<std::size_t>(columns));
  kernels::rms_norm(
      {input.x, input.norm, normed.data(), 1, columns, static_cast<float>(input.eps)});
  return memory.round(codes, normed.data(), columns, 1);
}

struct Share {
  int thread, threads;

  // Of a layer of so many outputs, of a weight like this one.
  std::pair<std::int64_t, std::int64_t> outputs(const PreparedWeight& weight,
                                                std::int64_t height) const {
    return outputs_of_share(height, weight.codes() ? kernels::kOutputsTogether : kPackedPanel,
                            thread, threads);
  }
};

// out = x W^T + bias + added, this thread's share of each of `layers` layers of one height.
void multiply_share(const PreparedWeight& weight, int layers, const RowInput& input,
                    const float* added, float* out, const Share& share) {
  if (const QuantizedCodes* codes = weight.codes()) {
    return codes->multiply_share(rounded(input, *codes),
                                 {out, weight.outputs(), weight.bias(), added}, share.thread,
                                 share.threads);
  }
  const kernels::PackedProduct call{
      input.x,          weight.inputs(), 1,
      weight.layer(),   added,           out,
      weight.outputs(), input.norm,      static_cast<float>(input.eps)};
  const std::int64_t height = weight.outputs() / layers;
  const auto [begin, end] = share.outputs(weight, height);
  for (std::int64_t first = 0; first < weight.outputs(); first += height) {
    kernels::packed_product_outputs(call, first + begin, first + end);
  }
}

}  // namespace

// The key-value heads [first, first + heads) of the one token, and the queries that read them.
void BlockRunner::step_attention(const StepRows& rows, std::int64_t first,
                                 std::int64_t heads) const {
  const std::int64_t dim = config_.head_dim, group = config_.heads / config_.kv_heads;
  const std::int64_t q_width = config_.q_width(), kv_width = config_.kv_width();
  const std::int64_t position = rows.cache->length - 1;
  float* q = rows.qkv + first * group * dim;
  float* k = rows.qkv + q_width + first * dim;
  float* v = k + kv_width;
  float* mixed = rows.mixed + first * group * dim;
  turn_heads(Norm::kQuery, q, qkv_.outputs(), 1, heads * group, position);
  turn_heads(Norm::kKey, k, qkv_.outputs(), 1, heads, position);
  kernels::AttentionSequence sequence{q, nullptr, nullptr, mixed, 1, position + 1};
  kernels::CodedAttention coded = coded_attention();
  if (coded.bits != 0) {
    take_bias_off(k, kv_width, 1, first, heads, position);
    const auto mix_heads = [&](float* states, std::int64_t count) {
      kernels::mix_channels(states, {count * dim, 1, count, dim});
    };
    mix_heads(q, heads * group);
    mix_heads(k, heads);
    mix_heads(v, heads);
    const auto store = [&](const float* states, at::Tensor& held) {
      auto* codes = held.mutable_data_ptr<std::uint8_t>() +
                    first * kernels::coded_head_bytes(dim, coded.bits);
      kernels::code_heads(states, {kv_width, 1, heads, dim}, coded.bits,
                          codes + position * coded.stride, coded.stride);
      return codes;
    };
    sequence.k_codes = store(k, rows.cache->keys);
    sequence.v_codes = store(v, rows.cache->values);
    if (coded.key_bias) coded.key_bias += first * dim;
  } else {
    const auto store = [&](const float* states, at::Tensor& held) {
      float* floats = held.mutable_data_ptr<float>() + first * dim;
      std::memcpy(floats + position * kv_width, states,
                  static_cast<std::size_t>(heads * dim) * sizeof(float));
      return floats;
    };
    sequence.k = store(k, rows.cache->keys);
    sequence.v = store(v, rows.cache->values);
  }
  kernels::causal_attention({&sequence, 1, heads * group, heads, dim, qkv_.outputs(), kv_width,
                             kv_width, q_width,
                             static_cast<float>(1.0 / std::sqrt(config_.head_dim)), coded});
  if (coded.bits != 0) kernels::mix_channels(mixed, {q_width, 1, heads * group, dim});
}

void BlockRunner::step_share(const StepRows& rows, int thread, int threads) const {
  const Share share{thread, threads};
  const float* hidden = rows.x;
  if (config_.attends()) {
    multiply_share(qkv_, 1, {rows.x, norm(Norm::kAttention), config_.norm_eps}, nullptr, rows.qkv,
                   share);
#pragma omp barrier
    const std::int64_t first = thread * config_.kv_heads / threads;
    const std::int64_t heads = (thread + 1) * config_.kv_heads / threads - first;
    if (heads > 0) step_attention(rows, first, heads);
#pragma omp barrier
    multiply_share(output_, 1, {rows.mixed}, rows.x, rows.attended, share);
#pragma omp barrier
    hidden = rows.attended;
  }
  multiply_share(gate_up_, 2, {hidden, norm(Norm::kMlp), config_.norm_eps}, nullptr, rows.gate_up,
                 share);
  const std::int64_t ffn = config_.ffn;
  const auto [begin, end] = share.outputs(gate_up_, ffn);
  if (begin < end) {
    kernels::gated_activation({rows.gate_up + begin, rows.gate_up + ffn + begin, rows.gated + begin,
                               1, end - begin, ffn, ffn, ffn,
                               kernel_activation(config_.activation)});
  }
#pragma omp barrier
  multiply_share(down_, 1, {rows.gated}, hidden, rows.out, share);
}

}  // namespace attar
