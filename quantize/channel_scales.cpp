#include "quantize/channel_scales.h"

#include <ATen/TensorOperators.h>

namespace attar {
namespace {

void scale_rows(Linear& linear, const at::Tensor& factor) {
  linear.weight = with_values(linear.weight, dense(linear.weight) * factor.unsqueeze(1));
  if (linear.bias.defined()) linear.bias = linear.bias * factor;
}

void scale_columns(Linear& linear, const at::Tensor& factor) {
  linear.weight = with_values(linear.weight, dense(linear.weight) * factor);
}

// Value channel c feeds channel c of every query head of its group: one scale a KV channel.
at::Tensor per_kv_channel(const at::Tensor& scale, const ModelConfig& config) {
  const std::int64_t repeats = config.heads / config.kv_heads;
  return scale.reshape({config.kv_heads, repeats, config.head_dim}).select(1, 0).reshape({-1});
}

// Divides the producer of a site's activations by `scale`, exactly.
void undo_in_producer(Block& block, Site site, const at::Tensor& scale, const ModelConfig& config) {
  const at::Tensor inverse = scale.reciprocal();
  switch (site) {
    case Site::kAttentionInput:
      block[Norm::kAttention] = block[Norm::kAttention] * inverse;
      return;
    case Site::kOutputInput:
      scale_rows(block[Role::kValue], per_kv_channel(inverse, config));
      return;
    case Site::kMlpInput:
      block[Norm::kMlp] = block[Norm::kMlp] * inverse;
      return;
    case Site::kDownInput:
      scale_rows(block[Role::kUp], inverse);
      return;
  }
}

}  // namespace

std::vector<Role> ChannelGroup::touched() const {
  std::vector<Role> roles = readers;
  if (producer) roles.push_back(*producer);
  return roles;
}

const std::array<ChannelGroup, 4>& channel_groups() {
  static const std::array<ChannelGroup, 4> kGroups = {
      ChannelGroup{Site::kAttentionInput, {Role::kQuery, Role::kKey, Role::kValue}},
      ChannelGroup{Site::kOutputInput, {Role::kOutput}, Role::kValue},
      ChannelGroup{Site::kMlpInput, {Role::kGate, Role::kUp}},
      ChannelGroup{Site::kDownInput, {Role::kDown}, Role::kUp}};
  return kGroups;
}

std::span<const ChannelGroup> channel_groups_of(const Block& block) {
  return std::span(channel_groups()).last(sites_of(block).size());
}

void apply_channel_scale(Block& block, const ChannelGroup& group, const at::Tensor& scale,
                         const ModelConfig& config) {
  for (const Role role : group.readers) scale_columns(block[role], scale);
  undo_in_producer(block, group.site, scale, config);
}

}  // namespace attar
