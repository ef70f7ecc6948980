// Narrower models of the same depth: fewer neurons, KV groups and channels, each layer that lost
// inputs refitted so that it gives what the dense layer gave.
#pragma once

#include "compress/calibrate/model_pass.h"
#include "compress/calibrate/stream.h"
#include "prune/structured_obs.h"

namespace attar {

struct WidthConfig {
  double ffn = 1.0;
  double kv_heads = 1.0;
  double hidden = 1.0;
  std::int64_t align = 64;
  bool uniform = true;
  bool refit = true;
  bool follow = true;
  std::string choose = "obs";
  double damping = 0.01;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = WidthConfig;
    visit("ffn", &C::ffn, Range{0.01, 1.0}, "Share of the MLP's neurons that stays.");
    visit("kv_heads", &C::kv_heads, Range{0.01, 1.0},
          "Share of the key-value heads that stays, each with the query heads that share it.");
    visit("hidden", &C::hidden, Range{0.01, 1.0}, "Share of the residual stream's channels.");
    visit("align", &C::align, Range<std::int64_t>{1, 4096},
          "Neurons and channels stay in multiples of this; 256 for k-quants of GGUF.");
    visit("uniform", &C::uniform, Any{},
          "The same widths in every block, which all programs load; false: shared out over the "
          "blocks by what the predictions lose (KL), the same number in all, which of the files "
          "GGUF alone holds, for llama.cpp.");
    visit("refit", &C::refit, Any{},
          "Refit the weights that stay towards the dense outputs, in closed form.");
    visit("follow", &C::follow, Any{},
          "Refits also make up for what the residual stream has lost before the layer (while "
          "channels stay).");
    visit("choose", &C::choose, OneOf{{"obs", "magnitude"}},
          "Which neurons and heads go: by the loss after refit, or by the size of their weights "
          "(the baseline).");
    visit("damping", &C::damping, Range{0.0, 1.0},
          "Share of mean(diag H) added to diag H; tenfold up to five times when H is singular.");
  }
};

class WidthPass final : public ModelPass {
 public:
  using Config = WidthConfig;
  static constexpr std::string_view kName = "prune.width";
  static constexpr std::string_view kSummary =
      "Fewer neurons and KV heads by structured OBS with a closed-form refit (Kurtic et al. 2023, "
      "arXiv:2302.04089), fewer channels by Minitron's scores (Muralidharan et al. 2024, "
      "arXiv:2407.14679).";

  explicit WidthPass(WidthConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.calibration = true, .statistics = true}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  ModelConfig shape_after(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  static constexpr std::int64_t kProbeWindows = 8;  // of the calibration text, for sharing out

  // Widths of a uniform result.
  std::int64_t neurons(const ModelConfig& config) const;
  std::int64_t kv_heads(const ModelConfig& config) const;
  std::int64_t channels(const ModelConfig& config) const;

  bool shares() const { return !config_.uniform && (config_.ffn < 1 || config_.kv_heads < 1); }
  // Throws UsageError for a share that rounds to all there is.
  void check_effect(const ModelConfig& config, const std::vector<BlockWidths>& widths) const;
  // Each block's own share.
  std::vector<BlockWidths> common_widths(const ModelConfig& config) const;
  // What each block keeps; equal everywhere when uniform.
  std::vector<BlockWidths> share(ModelWork& work) const;
  RemovalOrder order(const at::Tensor& weight, const at::Tensor& gram, std::int64_t width,
                     std::int64_t count, const std::string& layer) const;
  void run_block(ModelWork& work, std::int64_t index, const BlockWidths& keep,
                 const at::Tensor& kept_channels, BlockStream& stream) const;

  WidthConfig config_;
};

}  // namespace attar
