// Scales of input channels that a layer is multiplied by and whoever feeds it is divided by: the
// model computes the same (Xiao et al. 2023, arXiv:2211.10438; Lin et al. 2023, arXiv:2306.00978).
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "compress/core/block.h"

namespace attar {

// The layers that read one input, and the layer before that undoes a scale of it (none: a norm).
struct ChannelGroup {
  Site site;
  std::vector<Role> readers;
  std::optional<Role> producer = std::nullopt;

  std::vector<Role> touched() const;  // readers and producer
};
const std::array<ChannelGroup, 4>& channel_groups();
// Those that the block has: without attention the MLP's alone.
std::span<const ChannelGroup> channel_groups_of(const Block& block);

// Multiplies the columns of the readers by `scale` [I] float32 and divides the producer by it.
// Under grouped-query attention the scale of `o` must be one for all query heads that read a value
// channel (tied_over_query_heads).
void apply_channel_scale(Block& block, const ChannelGroup& group, const at::Tensor& scale,
                         const ModelConfig& config);

}  // namespace attar
