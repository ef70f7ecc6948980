// distill: a student learns from a teacher, by a composition of losses (loss_plan.h).
#pragma once

#include <optional>

#include "compress/calibrate/model_pass.h"
#include "compress/train/teacher_cache.h"
#include "compress/train/trainer.h"
#include "distill/loss_plan.h"

namespace attar {

struct DistillConfig : TrainConfig {
  std::string teacher = "original";
  nlohmann::json loss = "forward_kl";
  std::vector<std::string> learn = {"weights", "norms", "embedding", "corrections"};
  std::string cache;
  std::string cache_kind = "top_k";
  std::int64_t cache_count = 32;
  double on_policy = 0;
  std::int64_t prompt = 0;
  double temperature = 1;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = DistillConfig;
    TrainConfig::train_fields<C>(visit);
    visit("teacher", &C::teacher, Any{},
          "original: what the recipe started from; or a folder or file with another model of the "
          "same tokenizer.");
    visit("loss", &C::loss, Any{},
          "Name of a loss, a mapping from names to options, or a list: forward_kl, reverse_kl, "
          "jensen_shannon, skew_forward, skew_reverse, total_variation, taid, cross_entropy, "
          "hidden, relation.");
    visit("learn", &C::learn, Any{},
          "What changes: weights, norms, embedding, corrections, scales. Values that learn "
          "leave their codes, unless scales learn.");
    visit("cache", &C::cache, Any{},
          "Folder that keeps the teacher's probabilities; they are written once, then the teacher "
          "is not run. Only forward_kl at temperature 1, and cross_entropy. Empty: none.");
    visit("cache_kind", &C::cache_kind, OneOf{{"top_k", "sampled"}},
          "What is kept of a token's distribution: its largest probabilities and the rest as one, "
          "or ids drawn from it.");
    visit("cache_count", &C::cache_count, Range<std::int64_t>{1, 255}, "Ids kept, or draws.");
    visit("on_policy", &C::on_policy, Range{0.0, 1.0},
          "Share of the windows whose end the student writes itself, to be judged by the teacher "
          "there (GKD), past an end of text as well; slow: token after token.");
    visit("prompt", &C::prompt, Range<std::int64_t>{0, 1 << 17},
          "on_policy: tokens of the text that stay in front; 0: half of the window.");
    visit("temperature", &C::temperature, Range{0.01, 100.0}, "on_policy: of the student's draws.");
  }
};

class DistillPass final : public ModelPass {
 public:
  using Config = DistillConfig;
  static constexpr std::string_view kName = "distill";
  static constexpr std::string_view kSummary =
      "A student learns a teacher's distribution, hidden states or relations (Hinton et al. 2015, "
      "arXiv:1503.02531); the teacher runs along or was written down before.";

  explicit DistillPass(DistillConfig config);
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
  DistillConfig config_;
  LossPlan losses_;
  Learning learning_;
};

}  // namespace attar
