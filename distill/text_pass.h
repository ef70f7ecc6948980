// train.text: plain next-token training. Continued pre-training, domain tuning, and models from
// nothing (compress/formats/initial_source.h).
#pragma once

#include "compress/calibrate/model_pass.h"
#include "compress/train/trainer.h"

namespace attar {

struct TextPassConfig : TrainConfig {
  std::vector<std::string> learn = {"weights", "norms", "embedding", "corrections"};

  template <class Visit>
  static void fields(Visit&& visit) {
    TrainConfig::train_fields<TextPassConfig>(visit);
    visit("learn", &TextPassConfig::learn, Any{},
          "What changes: weights, norms, embedding, corrections, scales. Values that learn "
          "leave their codes, unless scales learn.");
  }
};

class TextPass final : public ModelPass {
 public:
  using Config = TextPassConfig;
  static constexpr std::string_view kName = "train.text";
  static constexpr std::string_view kSummary =
      "Next-token training on text with AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); from "
      "the model's weights, or from nothing where a folder has initialise.json.";

  explicit TextPass(TextPassConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override;
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  PlannedRows plan_rows(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  std::int64_t state_bytes(const ModelConfig& config) const override;
  double learning_tokens(double /*tokens*/, std::int64_t /*length*/) const override {
    return config_.tokens();
  }
  void run(ModelWork& work) const override;

 private:
  TextPassConfig config_;
  Learning learning_;
};

}  // namespace attar
