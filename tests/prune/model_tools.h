// Small random models whose answer a test knows, and a pass run over them.
#pragma once

#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <functional>
#include <memory>

#include "compress/calibrate/model_pass.h"
#include "compress/core/block_runner.h"
#include "tests/prune/matrices.h"

namespace attar::testing {

// A random model that a test changes before it is read.
class ChangedSource final : public RandomSource {
 public:
  using Change = std::function<void(std::int64_t index, Block& block)>;
  explicit ChangedSource(Change change, ModelConfig config = small_config())
      : RandomSource(std::move(config)), change_(std::move(change)) {}
  Block read_block(std::int64_t index) const override {
    Block block = RandomSource::read_block(index);
    change_(index, block);
    return block;
  }
  Weight read_embedding() const override {
    at::Tensor values = dense(RandomSource::read_embedding());
    if (silent.defined()) values.index_fill_(1, silent, 0.0);
    return DenseWeight{values};
  }
  Weight read_head() const override { return read_embedding(); }

  at::Tensor silent;  // channels that nothing writes

 private:
  Change change_;
};

inline Model model_with(ChangedSource::Change change) {
  return Model(std::make_shared<ChangedSource>(std::move(change)));
}

inline at::Tensor some_ids(std::int64_t sequences, std::int64_t length) {
  at::Tensor ids = at::zeros({sequences, length}, at::kLong);
  const CounterRandom random(5, "ids");
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.data_ptr<std::int64_t>()[i] =
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(i), 101));
  }
  return ids;
}

inline at::Tensor logits(const Model& model, const at::Tensor& ids) {
  const RopeTable rope = rope_table(model.config(), ids.size(1));
  at::Tensor hidden = embed(model.embedding(), ids);
  for (std::int64_t index = 0; index < model.config().layers; ++index) {
    hidden = BlockRunner(model.config().of_block(index), model.block(index), rope).forward(hidden);
  }
  hidden = rms_norm(hidden, model.final_norm(), model.config().norm_eps);
  return at::mm(hidden.flatten(0, 1), dense(model.head()).t());
}

inline double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

inline double distance(const Model& changed, const Model& model) {
  const at::Tensor ids = some_ids(4, 32);
  const at::Tensor a = logits(changed, ids), b = logits(model, ids);
  return ((a - b).square().sum() / b.square().sum()).item<double>();
}

struct Outcome {
  Model model;
  PassReport report;
};

inline Outcome run(const ModelPass& pass, const Model& model, std::int64_t sequences = 24) {
  const CalibrationTokens tokens = calibration_of(some_ids(sequences, 48));
  Outcome outcome{model.successor(std::make_shared<MemoryModelStore>()), {}};
  const RunContext context;
  ModelWork work{model, outcome.model, model, &tokens, nullptr, {}, outcome.report, context};
  pass.run(work);
  return outcome;
}

}  // namespace attar::testing
