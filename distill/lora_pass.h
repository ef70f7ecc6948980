// train.lora: low-rank terms beside weights that stay as they are, trained on text.
#pragma once

#include "compress/calibrate/model_pass.h"
#include "compress/core/layer_choice.h"
#include "compress/train/trainer.h"

namespace attar {

struct LoraConfig : TrainConfig, LayerChoiceConfig {
  LoraConfig() {
    learning_rate = 2e-4;
    weight_decay = 0;
  }

  std::int64_t rank = 16;
  double alpha = 32;
  bool merge = false;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = LoraConfig;
    visit("rank", &C::rank, Range<std::int64_t>{1, 4096}, "Rank of a layer's term.");
    visit("alpha", &C::alpha, Range{1e-3, 1e5},
          "The term is alpha / rank * B A x: how fast it grows, not how large it may be.");
    visit("merge", &C::merge, Any{},
          "Add the terms to the weights in the end; otherwise they stay beside them, for an export "
          "of format peft.");
    layer_fields(visit);
    train_fields<C>(visit);
  }
};

class LoraPass final : public ModelPass {
 public:
  using Config = LoraConfig;
  static constexpr std::string_view kName = "train.lora";
  static constexpr std::string_view kSummary =
      "Trains low-rank terms beside frozen weights, plain or quantized (LoRA, Hu et al. 2021, "
      "arXiv:2106.09685); kept for PEFT, or merged.";

  explicit LoraPass(LoraConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.tokenizer = true}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  std::int64_t state_bytes(const ModelConfig& config) const override;
  double learning_tokens(double /*tokens*/, std::int64_t /*length*/) const override {
    return config_.tokens();
  }
  void run(ModelWork& work) const override;

 private:
  // Values of the terms, their gradients and moments.
  std::int64_t term_bytes(const ModelConfig& config) const;

  LoraConfig config_;
};

}  // namespace attar
