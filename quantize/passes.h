// The quantizing passes. Their mathematics stands in rtn.h, gptq.h and awq.h; here a model is
// walked.
#pragma once

#include <map>

#include "compress/calibrate/blockwise.h"
#include "quantize/scheme_rules.h"

namespace attar {

struct RtnConfig : SchemeConfig {
  bool search = false;

  template <class Visit>
  static void fields(Visit&& visit) {
    scheme_fields(visit);
    visit("search", &RtnConfig::search, Any{},
          "Search each group's range by squared error instead of taking minimum and maximum.");
  }
};

// Plain rounding to nearest. Needs no data.
class RtnPass final : public BlockwisePass {
 public:
  using Config = RtnConfig;
  static constexpr std::string_view kName = "quantize.rtn";
  static constexpr std::string_view kSummary =
      "Plain rounding to the nearest code; no data, the baseline.";

  explicit RtnPass(RtnConfig config);
  std::string_view name() const override { return kName; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run_block(BlockWork& work) const override;

 private:
  RtnConfig config_;
  SchemeRules rules_;
};

struct GptqConfig : SchemeConfig {
  bool act_order = true;
  bool static_groups = true;
  bool search = true;
  // 0.01, which the paper uses, gave SmolLM2 0.0896 where this gives 0.0857 (W4 g64 behind AWQ, 128
  // x 512 tokens of C4, 24 x 1024 of WikiText-2; 0.0529 and 0.0530 on TinyStories).
  double damping = 0.03;
  int refits = 0;
  int descents = 0;
  double towards_dense = 0.5;
  bool follow = true;

  template <class Visit>
  static void fields(Visit&& visit) {
    scheme_fields(visit);
    using C = GptqConfig;
    visit("act_order", &C::act_order, Any{}, "Columns of large activations first.");
    visit("static_groups", &C::static_groups, Any{},
          "Grids from the weights before the sweep; act_order needs it.");
    visit("search", &C::search, Any{}, "Search each group's range by weighted squared error.");
    visit("damping", &C::damping, Range{0.0, 1.0},
          "Share of mean(diag H) added to diag H; tenfold up to five times when H is singular.");
    visit("refits", &C::refits, Range{0, 16},
          "Times the scales are refitted under H with codes fixed, each followed by a sweep.");
    visit("descents", &C::descents, Range{0, 64},
          "Passes of coordinate descent over the codes, at most.");
    visit("towards_dense", &C::towards_dense, Range{0.0, 1.0},
          "Share of the way from a layer's weight to the one that would give the unchanged model's "
          "outputs from inputs as they have become: what is rounded then (Qronos, "
          "arXiv:2505.11695). A second "
          "stream of activations, of the unchanged model, goes beside.");
    visit("follow", &C::follow, Any{},
          "towards_dense: also make up for what the residual stream has lost before the layer (o, "
          "down).");
  }
};

// GPTQ, true-sequential: the inputs of a layer come through the layers already rounded.
class GptqPass final : public BlockwisePass {
 public:
  using Config = GptqConfig;
  static constexpr std::string_view kName = "quantize.gptq";
  static constexpr std::string_view kSummary =
      "Rounds column after column and moves each error onto the columns still free "
      "(Frantar et al. 2022, arXiv:2210.17323).";

  explicit GptqPass(GptqConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = true, .dense_stream = config_.towards_dense > 0};
  }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run_block(BlockWork& work) const override;

 private:
  GptqConfig config_;
  SchemeRules rules_;
};

struct AwqConfig : SchemeConfig {
  int steps = 10;
  bool weight_scale = true;
  bool clip = true;

  template <class Visit>
  static void fields(Visit&& visit) {
    scheme_fields(visit);
    using C = AwqConfig;
    visit("steps", &C::steps, Range{1, 1000}, "Exponents tried: 0, 1/steps, ..., 1.");
    visit("weight_scale", &C::weight_scale, Any{},
          "Also try scales divided by the weights' own magnitude.");
    visit("clip", &C::clip, Any{}, "Search the range of each group that this pass rounds.");
  }
};

// AWQ: scales input channels, exactly undone in the layer before, so that rounding hurts less. A
// layer that a later pass rounds is scaled for that pass's grid and left dense; the others are
// rounded here.
class AwqPass final : public BlockwisePass {
 public:
  using Config = AwqConfig;
  static constexpr std::string_view kName = "quantize.awq";
  static constexpr std::string_view kSummary =
      "Scales input channels so that rounding hurts outputs least, undone in the layer before "
      "(Lin et al. 2023, arXiv:2306.00978); v->o stays exact under grouped-query attention.";

  explicit AwqPass(AwqConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.calibration = true}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  void see_later(std::span<const PassPlan> plans) override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run_block(BlockWork& work) const override;

 private:
  struct Later {  // what a later pass does to a layer
    QuantScheme scheme;
    bool compensates = false;
  };
  struct Target {
    QuantScheme scheme;
    bool later = false;        // a later pass rounds this layer
    bool compensates = false;  // and moves its errors
  };
  std::optional<Target> target(std::int64_t block, Role role) const;
  bool rounds_itself() const;

  AwqConfig config_;
  SchemeRules rules_;
  std::map<std::pair<std::int64_t, Role>, Later> later_;
};

class PassRegistry;
void register_quantize_passes(PassRegistry& registry);

}  // namespace attar
