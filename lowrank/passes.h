// The low-rank passes. Their mathematics stands in output_pca.h, refit.h and water_filling.h; here
// a model is walked.
#pragma once

#include "compress/calibrate/blockwise.h"
#include "compress/calibrate/model_pass.h"
#include "compress/core/layer_choice.h"
#include "lowrank/factor_config.h"
#include "lowrank/output_pca.h"
#include "lowrank/spectra.h"

namespace attar {

struct SvdConfig : LayerChoiceConfig, FactorConfig {
  double keep = 0.8;
  std::int64_t rank = 0;
  std::int64_t align = 32;
  std::string method = "outputs";
  std::string allocation = "water_filling";
  std::string sensitivity = "predictions";
  std::string refit = "full";
  bool follow = true;
  double damping = 1.0;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = SvdConfig;
    visit("keep", &C::keep, Range{0.01, 1.0},
          "Share of the parameters of the chosen layers that stays.");
    visit("rank", &C::rank, Range<std::int64_t>{0, 1 << 16},
          "The same rank in every chosen layer, in place of keep; 0: keep decides.");
    visit("align", &C::align, Range<std::int64_t>{1, 1024}, "Ranks are multiples of this.");
    visit("method", &C::method, OneOf{{"outputs", "plain"}},
          "outputs: principal directions of the outputs on the calibration text; plain: truncated "
          "SVD of the weight, no data, the baseline.");
    visit("allocation", &C::allocation, OneOf{{"water_filling", "uniform"}},
          "water_filling: one budget over all layers, by what each loses; uniform: the same share "
          "in each.");
    visit("sensitivity", &C::sensitivity, OneOf{{"predictions", "block", "energy"}},
          "What water-filling compares: the harm to the predictions (KL), or to the block's "
          "outputs, measured by cutting layers and blocks one at a time; or the share of the "
          "layer's own output energy.");
    visit("refit", &C::refit, OneOf{{"full", "left", "none"}},
          "Aim at the dense model's outputs from the inputs of the cut one: both factors (layers "
          "that stay dense too), the left one, or not.");
    visit("follow", &C::follow, Any{},
          "Refit: also make up for what the residual stream has lost before the layer (o, down).");
    visit("damping", &C::damping, Range{0.0, 10.0},
          "Refit: share of the mean diagonal of X X^T that draws towards the weight as it was.");
    factor_fields(visit);
    layer_fields(visit);
  }
};

// Cuts weights to two factors. Ranks are shared out over the whole model first, then blocks are cut
// one after the other, each from the inputs that the cut ones before it give.
class SvdPass final : public ModelPass {
 public:
  using Config = SvdConfig;
  static constexpr std::string_view kName = "lowrank.svd";
  static constexpr std::string_view kSummary =
      "Weights as products of two factors: principal directions of the outputs (SVD-LLM, Wang et "
      "al. 2024, arXiv:2403.07378), ranks by water-filling, refitted to the dense outputs.";

  explicit SvdPass(SvdConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override;
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  // By block * 7 + role; 0: stays dense, -1: not chosen.
  using Ranks = std::vector<std::int64_t>;
  bool plain() const { return config_.method == "plain"; }
  std::int64_t budget_of(std::int64_t parameters) const {
    return static_cast<std::int64_t>(config_.keep * static_cast<double>(parameters));
  }
  Ranks choose_ranks(ModelWork& work) const;
  void cut_block(ModelWork& work, BlockStream* stream, const Ranks& ranks, std::int64_t index,
                 const Block& original, Block& block) const;
  void cut_layer(ModelWork& work, const std::string& layer, std::int64_t rank,
                 const at::Tensor& gram, const linalg::CrossGram* cross, Weight& weight) const;

  SvdConfig config_;
  FactorStorage storage_;
};

struct CorrectConfig : LayerChoiceConfig, FactorConfig {
  std::int64_t rank = 32;
  std::string target = "dense";
  bool follow = true;
  double damping = 0.01;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = CorrectConfig;
    visit("rank", &C::rank, Range<std::int64_t>{1, 1 << 16}, "Of the correction.");
    visit("target", &C::target, OneOf{{"dense", "weight"}},
          "dense: the outputs of the unchanged model; weight: what the weight lost, on the inputs "
          "as they are now.");
    visit("follow", &C::follow, Any{},
          "target dense: also make up for what the residual stream has lost before the layer (o, "
          "down).");
    visit("damping", &C::damping, Range{0.0, 10.0},
          "target dense: share of the mean diagonal of X X^T that draws towards no correction.");
    factor_fields(visit);
    layer_fields(visit);
  }
};

// Adds to each layer that the passes before have rounded or pruned the low-rank term that brings
// its outputs nearest to the unchanged model's. Codes and masks stay.
class CorrectPass final : public BlockwisePass {
 public:
  using Config = CorrectConfig;
  static constexpr std::string_view kName = "lowrank.correct";
  static constexpr std::string_view kSummary =
      "A low-rank term beside what rounding or pruning left, best for the outputs on the "
      "calibration text (EoRA, Liu et al. 2024, arXiv:2410.21271).";

  explicit CorrectPass(CorrectConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = true, .dense_stream = config_.target == "dense", .losses = true};
  }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run_block(BlockWork& work) const override;

 private:
  void correct(BlockWork& work, Role role, const linalg::GramStatistics& statistics,
               const linalg::CrossGram* cross) const;

  CorrectConfig config_;
  FactorStorage storage_;
};

struct ShareConfig : LayerChoiceConfig {
  double keep = 0.8;
  std::int64_t span = 2;
  std::int64_t align = 32;
  double damping = 1.0;
  std::string type = "f16";

  ShareConfig() { layers = {"q", "k", "v", "gate", "up"}; }

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = ShareConfig;
    visit("keep", &C::keep, Range{0.01, 1.0},
          "Share of the parameters of the chosen layers that stays.");
    visit("span", &C::span, Range<std::int64_t>{1, 64}, "Neighbouring blocks with one basis.");
    visit("align", &C::align, Range<std::int64_t>{1, 1024}, "Ranks are multiples of this.");
    visit("damping", &C::damping, Range{0.0, 10.0},
          "Refit to the dense outputs: share of the mean diagonal that draws towards no refit.");
    visit("type", &C::type, OneOf{{"f16", "bf16", "f32"}}, "What factors are stored as.");
    layer_fields(visit);
  }
};

// One basis for all layers of neighbouring blocks that read the same kind of input: the right
// factor is shared, each layer has a left one of its own. o and down, whose inputs differ from
// block to block, gain little from it and are left out unless asked for.
class SharePass final : public ModelPass {
 public:
  using Config = ShareConfig;
  static constexpr std::string_view kName = "lowrank.share";
  static constexpr std::string_view kSummary =
      "One basis for the inputs of neighbouring blocks, each layer with coefficients of its own "
      "(Basis Sharing, Wang et al. 2024, arXiv:2410.03765).";

  explicit SharePass(ShareConfig config) : config_(std::move(config)) {}
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = true, .dense_stream = true, .statistics = true};
  }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  struct Shared;  // one basis and who reads through it
  std::vector<double> importances(ModelWork& work) const;
  std::vector<Shared> find_bases(ModelWork& work) const;
  void choose_ranks(ModelWork& work, std::vector<Shared>& bases) const;
  void cut_layer(ModelWork& work, const Shared& shared, std::int64_t index, Role role, Block& block,
                 const at::Tensor& gram, const at::Tensor& cross) const;

  ShareConfig config_;
};

class PassRegistry;
void register_lowrank_passes(PassRegistry& registry);

}  // namespace attar
