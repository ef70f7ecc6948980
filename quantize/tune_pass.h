// quantize.tune: codes stay or learn as well, the grid and what is cheap beside it learn the
// teacher's distribution.
#pragma once

#include "compress/calibrate/model_pass.h"
#include "compress/train/teachers.h"
#include "compress/train/trainer.h"

namespace attar {

struct TuneConfig : TrainConfig {
  TuneConfig() {
    batch = 4;
    learning_rate = 2e-3;
    warmup = 0.1;
    floor = 0.0;
    weight_decay = 0;
    recompute = true;
    shift = false;  // calibration windows are what they are
  }

  double epochs = 2;
  std::int64_t held_out = 8;
  std::string loss = "forward_kl";
  std::vector<std::string> learn = {"scales", "norms", "corrections"};
  double code_rate = 0.7;
  std::string teacher = "original";
  std::string cache;
  std::string cache_kind = "top_k";
  std::int64_t cache_count = 64;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = TuneConfig;
    visit("epochs", &C::epochs, Range{0.001, 1e4}, "Times that the windows are gone through.");
    visit("batch", &C::batch, Range<std::int64_t>{1, 1 << 20}, "Windows of an update.");
    visit("learning_rate", &C::learning_rate, Range{0.0, 1.0},
          "At its highest, after warm-up; a share of each scale's size.");
    visit("warmup", &C::warmup, Range{0.0, 1.0}, "Share of the steps that warm up.");
    visit("floor", &C::floor, Range{0.0, 1.0}, "Share of the learning rate at the last step.");
    visit("clip", &C::clip, Range{0.0, 1e6}, "Largest norm of the gradient; 0: none.");
    visit("average", &C::average, Range{0.0, 0.999999},
          "Decay of an average of what learns that is kept in its place; 0: none.");
    visit(
        "held_out", &C::held_out, Range<std::int64_t>{1, 1 << 20},
        "Windows, evenly spread, that judge start and end and are not learnt from; at most half.");
    visit("loss", &C::loss, OneOf{{"forward_kl", "reverse_kl"}},
          "KL to the teacher, or of the model to it.");
    visit("learn", &C::learn, Any{},
          "What changes: scales (and real minima), norms (and biases), corrections, embedding; "
          "and codes of the blocks' layers.");
    visit("code_rate", &C::code_rate, Range{0.0, 1e4},
          "Of codes, where they learn: times the learning rate, in steps from one to the next.");
    visit("teacher", &C::teacher, Any{},
          "original: what the recipe started from; or a folder or file with another model of the "
          "same tokenizer.");
    visit("text", &C::text, Any{}, "Text files to learn from in place of the calibration windows.");
    visit("separator", &C::separator, Any{},
          "Cuts text files into documents; empty: a file is one document.");
    visit("end_of_text", &C::end_of_text, Any{}, "The tokenizer's EOS after each document.");
    visit("length", &C::length, Range<std::int64_t>{2, 1 << 17},
          "Tokens of a window of `text`; calibration windows have their own.");
    visit("cache", &C::cache, Any{},
          "Folder that keeps the teacher's probabilities; they are written once, then the teacher "
          "is not run. Only forward_kl. Empty: none.");
    visit("cache_kind", &C::cache_kind, OneOf{{"top_k", "sampled"}},
          "What is kept of a token's distribution: its largest probabilities and the rest as one, "
          "or ids drawn from it.");
    visit("cache_count", &C::cache_count, Range<std::int64_t>{1, 255}, "Ids kept, or draws.");
    visit("recompute", &C::recompute, Any{},
          "Run blocks again for their gradient: the same bits, less memory, more time.");
    visit("save_seconds", &C::save_seconds, Range{0.0, 86400.0},
          "Seconds between two states on disk; never changes a result.");
  }
};

class TunePass final : public ModelPass {
 public:
  using Config = TuneConfig;
  static constexpr std::string_view kName = "quantize.tune";
  static constexpr std::string_view kSummary =
      "Scales, real minima, norms and corrections learn the teacher's distribution, codes as well "
      "where asked (EfficientQAT's second phase, Chen et al. 2024, arXiv:2407.11062, with KL).";

  explicit TunePass(TuneConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = config_.text.empty(),
            .teacher = true,
            .tokenizer = true,
            .codes = NeededCodes::kAny};
  }
  double learning_tokens(double tokens, std::int64_t length) const override;
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  PlannedRows plan_rows(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  std::int64_t state_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  TuneConfig config_;
  Learning learning_;
};

}  // namespace attar
