// quantize.autoround: behind a pass that rounds, block by block, which way each weight is rounded
// is learnt from the block's outputs.
#pragma once

#include "compress/calibrate/blockwise.h"
#include "quantize/block_rounding.h"

namespace attar {

struct AutoroundConfig : BlockRoundingOptions {
  double towards_dense = 1;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = AutoroundConfig;
    visit("steps", &C::steps, Range<std::int64_t>{1, 1 << 20}, "Updates of a block.");
    visit("batch", &C::batch, Range<std::int64_t>{1, 1 << 20}, "Windows of an update.");
    visit("learning_rate", &C::learning_rate, Range{0.0, 1.0},
          "At its highest, after warm-up: in steps between codes, and in shares of a scale.");
    visit("scales", &C::scales, Any{}, "Scales and real minima learn too.");
    visit(
        "held_out", &C::held_out, Range<std::int64_t>{1, 1 << 20},
        "Windows, evenly spread, that judge start and end and are not learnt from; at most half.");
    visit("towards_dense", &C::towards_dense, Range{0.0, 1.0},
          "What is aimed at: 1, the unchanged model's states after the block; 0, what the "
          "unchanged block makes of the states that reach it now; or between the two.");
  }
};

class AutoroundPass final : public BlockwisePass {
 public:
  using Config = AutoroundConfig;
  static constexpr std::string_view kName = "quantize.autoround";
  static constexpr std::string_view kSummary =
      "Behind a pass that rounds: learns, block by block, which way each weight goes (SignRound, "
      "Cheng et al. 2023, arXiv:2309.05516, from GPTQ's codes).";

  explicit AutoroundPass(AutoroundConfig config) : config_(config) {}
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = true,
            .dense_stream = true,
            .block_outputs = true,
            .codes = NeededCodes::kFresh};
  }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  double learning_tokens(double /*tokens*/, std::int64_t length) const override {
    return static_cast<double>(config_.steps * config_.batch * length);
  }
  void run_block(BlockWork& work) const override;

 private:
  AutoroundConfig config_;
};

}  // namespace attar
