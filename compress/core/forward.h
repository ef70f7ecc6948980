// The one definition of what a model computes: its steps, and a block with gradients. Calibration,
// evaluation and generation run the same steps without gradients: block_runner.h.
//
// Shapes: B sequences of T tokens; hidden states are [B, T, hidden] float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "compress/core/block.h"
#include "compress/core/config.h"

namespace attar {

namespace kernels {
enum class Activation : std::uint8_t;
}

// cos and sin of every position, [positions, head_dim / 2] float32, computed as transformers does.
struct RopeTable {
  at::Tensor cos;
  at::Tensor sin;
};
RopeTable rope_table(const ModelConfig& config, std::int64_t positions);

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, Activation activation);

// Queries or keys [..., heads * head_dim] as attention rotates them: each head normed, or, where
// `norm` [head_dim] is undefined, as they are.
at::Tensor norm_heads(const at::Tensor& states, const at::Tensor& norm, double eps);

// The same without gradients, into float32 rows that are there already; the result is `out`. `gate`
// and `up` may be halves of wider rows.
at::Tensor rms_norm_into(at::Tensor out, const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor gated_activation_into(at::Tensor out, const at::Tensor& gate, const at::Tensor& up,
                                 Activation activation);

// x [..., I] as a layer that rounds its input to `grid` reads it (compress/kernels/round_tokens),
// [..., I]. Gradients pass as if nothing were rounded.
at::Tensor round_tokens(const at::Tensor& x, kernels::TokenGrid grid);

kernels::Activation kernel_activation(Activation activation);

// What the linear layers of a block give on the way, [B, T, width], with their graphs.
struct BlockOutputs {
  at::Tensor query, key, value;  // not rotated, heads not normed; undefined without attention
  at::Tensor between;            // [B, T, hidden]: x + o(attention)
  at::Tensor gate, up;
};

// A block's function with gradients with respect to x and the block's tensors. [B, T, hidden].
at::Tensor block_forward(const ModelConfig& config, const Block& block, const RopeTable& rope,
                         const at::Tensor& x, BlockOutputs* outputs = nullptr);

// Rows of an embedding in any state: ids [...] int64 -> [..., hidden] float32.
at::Tensor embed(const Weight& embedding, const at::Tensor& ids);

}  // namespace attar
