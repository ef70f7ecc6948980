// One transformer block: its norms and linear layers, each in whatever state passes left it.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "compress/core/config.h"
#include "compress/core/weight.h"

namespace attar {

struct Linear {
  Weight weight;
  at::Tensor bias;  // [O] float32, or undefined

  // y = W x + b. `input` [..., I] float32 -> [..., O] float32. Gives gradients with respect to the
  // input and to whatever `dense(weight)` is differentiable in.
  at::Tensor forward(const at::Tensor& input) const;
};

// Without attention (`attends`) q, k, v and o are not there ([0, 0]), their norms undefined.
struct Block {
  std::array<at::Tensor, kNorms.size()> norms;  // [width_of] float32; undefined: has none
  std::array<Linear, kRoles.size()> linears;

  Linear& operator[](Role role) { return linears[index_of(role)]; }
  const Linear& operator[](Role role) const { return linears[index_of(role)]; }
  at::Tensor& operator[](Norm norm) { return norms[index_of(norm)]; }
  const at::Tensor& operator[](Norm norm) const { return norms[index_of(norm)]; }
};

// The widths that the block's own weights have.
BlockWidths widths_of(const Block& block, std::int64_t head_dim);

// Whether the block has attention, and what it is made of.
bool attends(const Block& block);
std::span<const Role> roles_of(const Block& block);
std::span<const Site> sites_of(const Block& block);
Block without_attention(Block block);

// Throws BadInput when a weight or norm disagrees with the configuration: another hidden size, or
// layers of the block that do not fit one another. Its widths may be others than the model's.
void check(const Block& block, const ModelConfig& config, std::string_view where);

// Throws NumericRefusal naming the first tensor that holds a NaN or an infinity.
void check_finite(const Block& block, std::int64_t index);

}  // namespace attar
