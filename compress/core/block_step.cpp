// A block for one token on codes: the weights stream by once, and what one thread waits for another
// is counted in microseconds. So one team of threads does all of the steps, small vectors are
// computed by each thread for itself, and only five barriers are left.
#include <omp.h>

#include <cmath>
#include <cstring>

#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/core/quantized_codes.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/rotate/rotate.h"
#include "compress/kernels/threads.h"

namespace attar {

// Rows that the threads of a team share; each is written by all of them, a part each.
struct BlockRunner::StepRows {
  const float* x;
  float* qkv;
  float* mixed;
  float* hidden;  // after attention
  float* gate_up;
  float* gated;
  float* out;
  float* keys;  // of the cache, the row of this token
  float* values;
  const KeyValues* cache;
};

bool BlockRunner::steps_alone(const at::Tensor& x, const KeyValues* cache) const {
  return cache != nullptr && x.numel() == config_.hidden && x.is_contiguous() && qkv_.codes() &&
         output_.codes() && gate_up_.codes() && down_.codes();
}

void BlockRunner::step(const float* x, KeyValues& cache, float* out) const {
  require(cache.length < cache.keys.size(0), "attention",
          "a cache continues one sequence within its capacity");
  require(cache.length < rope_.cos.size(0), "attention", "a sequence of ", cache.length + 1,
          " tokens exceeds the ", rope_.cos.size(0), " positions prepared");
  const std::int64_t row = cache.length * config_.kv_width();
  const StepRows rows{x,
                      memory_->floats(ForwardMemory::kProjected, qkv_.outputs()),
                      memory_->floats(ForwardMemory::kMixed, config_.q_width()),
                      memory_->floats(ForwardMemory::kHidden, config_.hidden),
                      memory_->floats(ForwardMemory::kGateUp, 2 * config_.ffn),
                      memory_->floats(ForwardMemory::kGated, config_.ffn),
                      out,
                      cache.keys.mutable_data_ptr<float>() + row,
                      cache.values.mutable_data_ptr<float>() + row,
                      &cache};
  ++cache.length;
  const bool shared = 3 * config_.hidden * config_.ffn >= kernels::kSharedProduct;
#pragma omp parallel num_threads(shared ? threads() : 1) if (shared && !omp_in_parallel())
  step_share(rows, omp_get_thread_num(), omp_get_num_threads());
}

namespace {

// The norm of a row, rounded, in memory of this thread.
kernels::RoundedRows norm_and_round(const float* x, const at::Tensor& weight, double eps) {
  thread_local std::vector<float> normed;
  thread_local RoundedMemory memory;
  const std::int64_t columns = weight.numel();
  normed.resize(static_cast<std::size_t>(columns));
  kernels::rms_norm(
      {x, weight.const_data_ptr<float>(), normed.data(), 1, columns, static_cast<float>(eps)});
  return memory.round(normed.data(), columns, 1, columns);
}

kernels::RoundedRows round_row(const float* x, std::int64_t columns) {
  thread_local RoundedMemory memory;
  return memory.round(x, columns, 1, columns);
}

}  // namespace

void BlockRunner::step_share(const StepRows& rows, int thread, int threads) const {
  const std::int64_t hidden = config_.hidden, ffn = config_.ffn, dim = config_.head_dim;
  const std::int64_t q_width = config_.q_width(), kv_width = config_.kv_width();
  qkv_.codes()->multiply_share(norm_and_round(rows.x, attention_norm_, config_.norm_eps),
                               {rows.qkv, qkv_.outputs(), qkv_.bias(), nullptr}, thread, threads);
#pragma omp barrier
  const std::int64_t first = thread * config_.kv_heads / threads;
  const std::int64_t heads = (thread + 1) * config_.kv_heads / threads - first;
  if (heads > 0) {
    const std::int64_t group = config_.heads / config_.kv_heads;
    float* q = rows.qkv + first * group * dim;
    float* k = rows.qkv + q_width + first * dim;
    const std::int64_t position = rows.cache->length - 1;
    const auto turn = [&](float* states, std::int64_t count) {
      kernels::rotate({states, qkv_.outputs(), 1, count, dim, dim,
                       rope_.cos.const_data_ptr<float>(), rope_.sin.const_data_ptr<float>(),
                       rope_.cos.size(0), position});
    };
    turn(q, heads * group);
    turn(k, heads);
    const auto size = static_cast<std::size_t>(heads * dim) * sizeof(float);
    std::memcpy(rows.keys + first * dim, k, size);
    std::memcpy(rows.values + first * dim, k + kv_width, size);
    const kernels::AttentionSequence sequence{
        q,
        rows.cache->keys.const_data_ptr<float>() + first * dim,
        rows.cache->values.const_data_ptr<float>() + first * dim,
        rows.mixed + first * group * dim,
        1,
        position + 1};
    kernels::causal_attention({&sequence, 1, heads * group, heads, dim, qkv_.outputs(), kv_width,
                               kv_width, q_width,
                               static_cast<float>(1.0 / std::sqrt(config_.head_dim))});
  }
#pragma omp barrier
  output_.codes()->multiply_share(round_row(rows.mixed, q_width),
                                  {rows.hidden, hidden, output_.bias(), rows.x}, thread, threads);
#pragma omp barrier
  gate_up_.codes()->multiply_share(norm_and_round(rows.hidden, mlp_norm_, config_.norm_eps),
                                   {rows.gate_up, 2 * ffn, gate_up_.bias(), nullptr}, thread,
                                   threads);
  const auto [begin, end] = QuantizedCodes::outputs_of_share(ffn, thread, threads);
  if (begin < end) {
    kernels::gated_activation({rows.gate_up + begin, rows.gate_up + ffn + begin, rows.gated + begin,
                               1, end - begin, ffn, ffn, ffn,
                               kernel_activation(config_.activation)});
  }
#pragma omp barrier
  down_.codes()->multiply_share(round_row(rows.gated, ffn),
                                {rows.out, hidden, down_.bias(), rows.hidden}, thread, threads);
}

}  // namespace attar
