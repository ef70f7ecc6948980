// Which instruction set the kernels run on: one table, chosen once.
//
// Every kernel is a free function `kernel(call, variant = active_variant())`. Tests and benchmarks
// walk variants(); everybody else leaves the default. The environment variable ATTAR_ISA
// (portable | avx2 | avx_vnni | avx512 | avx512_vnni | amx | neon | neon_dot) forces one.
//
// Common promises of all kernels: fp32 arithmetic; plain pointers without alignment demands; a
// row's bits depend on that row's data alone, never on the number of threads, on the rows beside
// it or on how rows are cut into calls. Two variants may differ by round-off.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace attar::kernels {

struct RmsNorm;
struct AddRmsNorm;
struct RmsNormGradient;
struct Rotate;
struct GatedActivation;
struct GatedActivationGradient;
struct CausalAttention;
struct AttentionWeights;
struct LogSoftmaxStats;
struct Divergence;
struct ResponseLoss;
struct BlockSearch;
struct GroupPrices;
struct EncodeBlocks;
struct AttentionTask;
struct PackMatrix;
struct PackedProduct;
struct PackedFinish;
struct PackedTask;
struct Transpose;
struct RoundRows;
struct QuantizedProduct;
struct QuantizedTask;

// Each entry works on the rows [begin, end) of its call, on one thread.
struct Variant {
  std::string_view name;
  bool (*supported)();  // by this processor and operating system

  void (*rms_norm)(const RmsNorm&, std::int64_t begin, std::int64_t end);
  void (*add_rms_norm)(const AddRmsNorm&, std::int64_t begin, std::int64_t end);
  void (*rms_norm_gradient)(const RmsNormGradient&, std::int64_t begin, std::int64_t end);
  void (*rotate)(const Rotate&, std::int64_t begin, std::int64_t end);
  void (*gated_activation)(const GatedActivation&, std::int64_t begin, std::int64_t end);
  void (*gated_activation_gradient)(const GatedActivationGradient&, std::int64_t begin,
                                    std::int64_t end);
  void (*causal_attention)(const CausalAttention&, const AttentionTask&);
  void (*attention_weights)(const AttentionWeights&);
  void (*log_softmax_stats)(const LogSoftmaxStats&, std::int64_t begin, std::int64_t end);
  void (*divergence)(const Divergence&, std::int64_t begin, std::int64_t end);
  void (*response_loss)(const ResponseLoss&, std::int64_t row, float* scratch);
  void (*f16_to_f32)(const void* source, float* out, std::int64_t count);
  void (*bf16_to_f32)(const void* source, float* out, std::int64_t count);
  void (*f32_to_f16)(const float* source, void* out, std::int64_t count);
  void (*f32_to_bf16)(const float* source, void* out, std::int64_t count);
  void (*block_search)(const BlockSearch&, std::int64_t begin, std::int64_t end);
  void (*group_prices)(const GroupPrices&, std::int64_t begin, std::int64_t end);
  float (*encode_blocks)(const EncodeBlocks&, std::int64_t begin, std::int64_t end);
  void (*round_rows)(const RoundRows&, std::int64_t begin, std::int64_t end);
  void (*quantized_product)(const QuantizedProduct&, const QuantizedTask&);
  int (*pack_panel)(const PackMatrix&, std::int64_t panel);
  void (*packed_product)(const PackedProduct&, const PackedTask&);
  void (*packed_finish)(const PackedFinish&, const PackedTask&);
  void (*transpose)(const Transpose&);
  bool splits = false;         // packed matrices hold pieces of floats, for tile instructions
  bool widens_slowly = false;  // float16, in software
};

// All variants of this build, best first; the last one runs anywhere.
std::span<const Variant> variants();

// The first supported variant, or the one that `forced` names when it is not empty. Throws
// std::invalid_argument if no variant has that name or this processor cannot run it.
const Variant& choose_variant(std::string_view forced);

// choose_variant(ATTAR_ISA), remembered. Throws on every call if ATTAR_ISA is wrong.
const Variant& active_variant();

// The name of active_variant().
std::string_view active_isa();

}  // namespace attar::kernels
