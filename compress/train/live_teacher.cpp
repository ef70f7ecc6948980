#include "compress/train/live_teacher.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/train/trainer.h"

namespace attar {
namespace {

// Dense float32 bytes up to which all blocks stay ready.
constexpr std::int64_t kKeptBytes = std::int64_t{64} << 20;

std::int64_t block_values(const ModelConfig& config) {
  std::int64_t values = 0;
  for (std::int64_t i = 0; i < config.layers; ++i) {
    for (const Role role : kRoles) {
      const LinearShape shape = shape_of(config, i, role);
      values += shape.out * shape.in;
    }
  }
  return values;
}

bool holds(const std::vector<std::int64_t>& all, std::int64_t one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace

LiveTeacher::LiveTeacher(const Model& model, VocabularyMap map,
                         std::vector<std::int64_t> boundaries, std::vector<std::int64_t> blocks)
    : model_(model),
      map_(std::move(map)),
      boundaries_(std::move(boundaries)),
      blocks_(std::move(blocks)),
      final_norm_(model.final_norm().to(at::kFloat).contiguous()),
      runners_(static_cast<std::size_t>(model.config().layers)),
      keeps_(4 * block_values(model.config()) <= kKeptBytes) {
  const at::Tensor head = dense(model.head());
  head_ = map_.teacher_ids.defined() ? head.index_select(0, map_.teacher_ids)
                                     : head.narrow(0, 0, map_.common);
}

const BlockRunner& LiveTeacher::ready(std::int64_t index) {
  const auto at = static_cast<std::size_t>(index);
  if (!keeps_) {
    for (auto& runner : runners_) runner.reset();
  }
  if (!runners_[at]) {
    runners_[at] = std::make_unique<BlockRunner>(model_.config().of_block(index),
                                                 model_.block(index), rope_, memory_);
    model_.done_with_block(index);
  }
  return *runners_[at];
}

void LiveTeacher::read(const at::Tensor& ids) {
  const std::int64_t batch = ids.size(0), length = ids.size(1);
  require<UsageError>(length <= config().max_positions, "distill", "length must be at most the ",
                      config().max_positions, " positions of the teacher, got ", length);
  if (!rope_.cos.defined() || rope_.cos.size(0) < length) {
    rope_ = rope_table(config(), length);
    for (auto& runner : runners_) runner.reset();
  }
  const at::Tensor own = map_.teacher_ids.defined()
                             ? map_.teacher_ids.index_select(0, ids.flatten()).view(ids.sizes())
                             : ids;
  at::Tensor x = embed(model_.embedding(), own).contiguous();
  const std::int64_t together = micro_sequences(length);
  for (std::int64_t i = 0; i <= config().layers; ++i) {
    if (holds(boundaries_, i)) states_[i] = x.clone();
    if (i == config().layers) break;
    if (holds(blocks_, i)) {
      const Block block = model_.block(i);
      const at::Tensor normed = rms_norm(x, block[Norm::kAttention], config().norm_eps);
      const double eps = config().norm_eps;
      projections_[i] = {norm_heads(block[Role::kQuery].forward(normed), block[Norm::kQuery], eps),
                         norm_heads(block[Role::kKey].forward(normed), block[Norm::kKey], eps),
                         block[Role::kValue].forward(normed)};
    }
    const BlockRunner& runner = ready(i);
    for (std::int64_t first = 0; first < batch; first += together) {
      const std::int64_t size = std::min(together, batch - first);
      runner.advance(x.narrow(0, first, size));
    }
  }
  normed_ = rms_norm(x, final_norm_, config().norm_eps);
}

}  // namespace attar
