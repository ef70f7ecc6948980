// A block made ready to run many times without gradients: calibration, evaluation and generation
// all come through here. Runs on compress/kernels; rows never depend on their neighbours in a
// batch.
//
// Shapes: B sequences of T tokens; hidden states are [B, T, hidden] float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <span>
#include <string_view>

#include "compress/core/forward.h"
#include "compress/core/prepared_weight.h"

namespace attar {

namespace kernels {
struct AttentionSequence;
struct CodedAttention;
}  // namespace kernels

// What attention reads keys and values as, from a cache or without one.
enum class CacheType : std::uint8_t {
  kFloat32,
  kCodes8,  // codes and a grid for 32 channels of one head and token: 9 bits a value,
  kCodes4,  // or 5 (compress/kernels/coded_heads)
};
// Of 32, 8 or 4 bits. Throws UsageError for others.
CacheType cache_type(std::int64_t bits, std::string_view where);

// Keys (rotated) and values of the tokens seen so far in one block, for one sequence.
struct KeyValues {
  at::Tensor keys;    // [capacity, kv_width] float32, or [capacity, bytes of a token] uint8 codes
  at::Tensor values;  // the same
  std::int64_t length = 0;
};

// Memory that forward passes use again and again in place of asking the system for it each time.
// Blocks that run one after the other may share one; it grows to the largest batch seen.
class ForwardMemory {
 public:
  enum Slot { kNormed, kProjected, kMixed, kHidden, kMlpNormed, kGateUp, kGated, kSlots };

  // Uninitialised float32 of this shape; what the slot held before is lost.
  at::Tensor take(Slot slot, at::IntArrayRef shape);
  // The same as plain floats.
  float* floats(Slot slot, std::int64_t count);

 private:
  std::array<at::Tensor, kSlots> slots_;
};

// A block made ready to run many times: weights prepared, q|k|v and gate|up joined so that
// each input is multiplied once. The six steps are what a true-sequential pass needs; `forward` is
// all of them; one without attention has the last three. A step's result lives in `memory`, until
// the same step is called again; the last step's and `forward`'s are the caller's. Holds no
// gradients: training calls `block_forward`.
class BlockRunner {
 public:
  BlockRunner(const ModelConfig& config, const Block& block, const RopeTable& rope,
              std::shared_ptr<ForwardMemory> memory = std::make_shared<ForwardMemory>(),
              Arithmetic arithmetic = Arithmetic::kExact,
              CacheType cache_type = CacheType::kFloat32);

  at::Tensor attention_input(const at::Tensor& x) const;                   // [B, T, hidden]
  at::Tensor attention(const at::Tensor& normed, KeyValues* cache) const;  // [B, T, q_width]
  // Several continuations of one prefix side by side: `normed` [1, sum of lengths, hidden] holds
  // them one after the other, each sees `prefix` and itself. `prefix` is not extended.
  at::Tensor attention_branches(const at::Tensor& normed, const KeyValues& prefix,
                                std::span<const std::int64_t> lengths) const;
  at::Tensor add_attention(const at::Tensor& x, const at::Tensor& mixed) const;  // x + o(mixed)
  at::Tensor attended(const at::Tensor& x) const;    // these three; without attention x
  at::Tensor mlp_input(const at::Tensor& h) const;   // [B, T, hidden]
  at::Tensor gated(const at::Tensor& normed) const;  // [B, T, ffn]
  at::Tensor add_mlp(const at::Tensor& h, const at::Tensor& gated) const;  // h + down(gated)

  // `cache` continues one sequence (B = 1) after cache->length tokens and is extended.
  at::Tensor forward(const at::Tensor& x, KeyValues* cache = nullptr) const;
  at::Tensor forward_branches(const at::Tensor& x, const KeyValues& prefix,
                              std::span<const std::int64_t> lengths) const;

  // Room for `tokens` tokens in all; keeps those that are there.
  void reserve(KeyValues& cache, std::int64_t tokens) const;

  // `forward` in place, without a cache: x [B, T, hidden], contiguous, becomes the outputs.
  void advance(at::Tensor x) const;

  // Becomes the runner of another block of the model, in the same memory.
  void take(const Block& block);
  // Takes the changed weights of the linear layers that read `site` over into the prepared copy.
  void prepare(const Block& block, Site site);
  // Gives the memory of the other weights back: no more than mlp_input and gated until `take`.
  void keep_gate_and_up() { qkv_ = output_ = down_ = {}; }

  std::int64_t prepared_bytes() const;

 private:
  at::Tensor project(const at::Tensor& normed) const;  // q | k | v, not rotated
  void turn(float* rows, std::int64_t length, std::int64_t first_position) const;
  // The same of `heads` heads of q or of k in rows of `stride` floats.
  void turn_heads(Norm norm, float* states, std::int64_t stride, std::int64_t length,
                  std::int64_t heads, std::int64_t first_position) const;
  const float* norm(Norm norm) const;  // null: there is none
  // `forward` of one token with a cache where threads can share each weight's outputs: one team of
  // threads for all of the steps. The same bits as step by step.
  bool steps_alone(const at::Tensor& x, const KeyValues* cache) const;
  void step(const float* x, KeyValues& cache, float* out) const;
  struct StepRows;
  void step_share(const StepRows& rows, int thread, int threads) const;
  void step_attention(const StepRows& rows, std::int64_t first, std::int64_t heads) const;
  void mix(std::span<const kernels::AttentionSequence> sequences, std::int64_t kv_stride,
           float* mixed) const;
  kernels::CodedAttention coded_attention() const;
  // Mixes the channels of q | k | v of rotated rows and codes k and v.
  void encode(float* rows, std::int64_t length, std::int64_t first_position, std::uint8_t* keys,
              std::uint8_t* values) const;
  // Takes the turned bias of the key-value heads from `head` on off rotated keys.
  void take_bias_off(float* keys, std::int64_t stride, std::int64_t length, std::int64_t head,
                     std::int64_t heads, std::int64_t first_position) const;
  int code_bits() const;             // 0: float32
  std::int64_t token_codes() const;  // bytes of keys or values of a token
  at::Tensor norm_and_project(const at::Tensor& x) const;
  at::Tensor attend(at::Tensor qkv, KeyValues* cache) const;
  // What attention mixes for x [B, T, hidden], [B, T, q_width]; undefined without attention, whose
  // cache counts the tokens all the same.
  at::Tensor mixed(const at::Tensor& x, KeyValues* cache) const;
  at::Tensor attend_branches(at::Tensor qkv, const KeyValues& prefix,
                             std::span<const std::int64_t> lengths) const;
  bool finishes_in_one(const at::Tensor& x) const;
  // o, where there is attention, then the MLP; `out` may be x.
  void finish_into(at::Tensor out, const at::Tensor& x, const at::Tensor& mixed) const;

  ModelConfig config_;
  Arithmetic arithmetic_;
  CacheType cache_type_;
  RopeTable rope_;
  std::shared_ptr<ForwardMemory> memory_;
  std::array<at::Tensor, kNorms.size()> norms_;
  at::Tensor key_bias_;  // [kv_width] float32; undefined: none, or keys are not coded
  PreparedWeight qkv_, output_, gate_up_, down_;  // q|k|v and gate|up joined
};

}  // namespace attar
