// Shallower models: blocks go, whole or their attention or MLP alone, and the block before each
// makes up for it as far as a linear map can.
#pragma once

#include "compress/calibrate/model_pass.h"

namespace attar {

// 1 - the mean cosine of what enters a block, or a part of one, and what leaves it, token by token
// (ShortGPT, Men et al. 2024, arXiv:2403.03853).
//   before, after  [tokens, hidden] float32
double block_influence(const at::Tensor& before, const at::Tensor& after);

struct DepthConfig {
  std::int64_t remove = 1;
  std::string unit = "block";
  std::int64_t align = 32;
  std::string choose = "kl";
  std::int64_t candidates = 0;
  std::int64_t windows = 8;
  bool patch = true;
  double damping = 0.01;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = DepthConfig;
    visit("remove", &C::remove, Range<std::int64_t>{1, 1 << 16}, "Units that go.");
    visit("unit", &C::unit, OneOf{{"block", "attention", "mlp"}},
          "What goes at a time: a whole block, its attention or its MLP, in place of which `align` "
          "neurons that write nothing stay. Blocks that differ go into a GGUF alone.");
    visit("align", &C::align, Range<std::int64_t>{1, 1 << 16},
          "mlp: neurons in its place (llama.cpp loses the attention of a block without any), a "
          "multiple of the groups that a later pass rounds.");
    visit("choose", &C::choose, OneOf{{"kl", "block_influence", "last"}},
          "One after the other, the unit whose loss changes the predictions least; or the one that "
          "turns its inputs least; or the last ones (the baseline).");
    visit("candidates", &C::candidates, Range<std::int64_t>{0, 1 << 16},
          "kl: units that are tried at each step, those of least block influence; 0: all.");
    visit("windows", &C::windows, Range<std::int64_t>{1, 1 << 20},
          "Calibration sequences on which block influence and KL are measured.");
    visit("patch", &C::patch, Any{},
          "After a removal, fit down of the block before to what the unit added (ridge "
          "regression on the calibration text); kept only where it lowers the KL.");
    visit("damping", &C::damping, Range{0.0, 10.0}, "Of the ridge, as a share of mean(diag H).");
  }
};

class DepthPass final : public ModelPass {
 public:
  using Config = DepthConfig;
  static constexpr std::string_view kName = "prune.depth";
  static constexpr std::string_view kSummary =
      "Fewer blocks, or attentions or MLPs alone (He et al. 2024, arXiv:2406.15786): greedily by "
      "KL "
      "(SLEB, Song et al. 2024, arXiv:2402.09025) or by block influence (Men et al. 2024, "
      "arXiv:2403.03853), with a closed-form patch of the block before.";

  explicit DepthPass(DepthConfig config) : config_(std::move(config)) {}
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.calibration = true}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  ModelConfig shape_after(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  DepthConfig config_;
};

}  // namespace attar
