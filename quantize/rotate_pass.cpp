#include "quantize/rotate_pass.h"

#include <algorithm>
#include <chrono>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "quantize/rotation.h"

namespace attar {
namespace {

linalg::RandomRotation random_rotation(std::int64_t size, std::uint64_t seed,
                                       std::string_view purpose) {
  const CounterRandom random(seed, purpose);
  std::vector<bool> negative;
  for (std::int64_t i = 0; i < size; ++i) {
    negative.push_back(random.below(static_cast<std::uint64_t>(i), 2) == 1);
  }
  return linalg::RandomRotation(std::move(negative));
}

}  // namespace

RotatePass::RotatePass(RotateConfig config) : config_(config) {
  require<UsageError>(config_.stream || config_.heads, kName,
                      "nothing to rotate: stream or heads must be true");
}

std::vector<PlannedLayer> RotatePass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned = plan_every_layer(config, "rotated");
  for (PlannedLayer& layer : planned) {
    if (config_.stream || layer.role == Role::kValue || layer.role == Role::kOutput) continue;
    layer.changes = false;
    layer.action = "unchanged";
  }
  return planned;
}

PlannedRows RotatePass::plan_rows(const ModelConfig& config) const {
  if (!config_.stream) return {};
  return {config.tied_head ? "rotated; the head becomes a matrix of its own" : "rotated",
          /*fewer=*/false, std::nullopt, /*plain=*/true};
}

ModelConfig RotatePass::shape_after(const ModelConfig& config) const {
  ModelConfig after = config;
  if (config_.stream) after.tied_head = false;
  return after;
}

std::int64_t RotatePass::working_bytes(const ModelConfig& config) const {
  // Embedding and head; of a block the weight at hand, plain and turned, and the block that it was.
  const std::int64_t rows = config_.stream ? 2 * config.vocabulary : 0;
  return 4 * config.hidden * std::max(rows, 3 * config.ffn);
}

void RotatePass::run(ModelWork& work) const {
  const ModelConfig& config = work.input.config();
  ModelRotation rotation;
  if (config_.stream) {
    rotation.stream = random_rotation(config.hidden, work.context.seed, "rotation of the stream");
    if (rotation.stream->block() < config.hidden) {
      work.report.events.push_back({"model", "rotation_in_blocks",
                                    "no Hadamard matrix of order " + std::to_string(config.hidden) +
                                        " is known here; each " +
                                        std::to_string(rotation.stream->block()) +
                                        " channels are rotated by themselves",
                                    /*fallback=*/false});
    }
    OuterWeights outer{work.input.embedding(), work.input.final_norm(), std::nullopt};
    if (!config.tied_head) outer.head = work.input.head();
    work.output.put_outer(rotated(outer, rotation));
  }
  if (config_.heads) {
    rotation.heads = random_rotation(config.head_dim, work.context.seed, "rotation of the heads");
  }
  const std::vector<PlannedLayer> planned = plan(config);
  for (std::int64_t index = 0; index < config.layers; ++index) {
    work.context.check_stop();
    const auto since = std::chrono::steady_clock::now();
    const Block before = work.input.block(index);
    const Block after = rotated(before, rotation);
    work.output.put_block(index, after);
    work.input.done_with_block(index);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
    for (const Role role : roles_of(after)) {
      const std::string layer = layer_name(index, role);
      if (!planned[static_cast<std::size_t>(index) * kRoles.size() + index_of(role)].changes) {
        continue;
      }
      work.context.progress(layer);
      work.report.changed.push_back({layer, "rotated", stored_bytes(before[role].weight),
                                     stored_bytes(after[role].weight), 0, 0,
                                     seconds / static_cast<double>(roles_of(after).size())});
    }
  }
}

}  // namespace attar
