// SmoothQuant in front of a pass that rounds weights and activations; the mathematics is
// smooth.h's.
#pragma once

#include <map>

#include "compress/calibrate/blockwise.h"
#include "quantize/channel_scales.h"

namespace attar {

struct SmoothConfig {
  int steps = 10;
  std::int64_t tokens = 512;
  std::vector<std::string> layers = {"*"};
  std::vector<std::string> skip;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = SmoothConfig;
    visit("steps", &C::steps, Range{1, 1000}, "Exponents tried: 1/steps, 2/steps, ..., 1.");
    visit("tokens", &C::tokens, Range<std::int64_t>{16, 65536},
          "Calibration tokens on whose outputs the search is judged.");
    visit("layers", &C::layers, Any{},
          "Layers whose inputs may be scaled: role (down), name (mlp.*) or full name.");
    visit("skip", &C::skip, Any{}, "But not these.");
  }
};

class SmoothPass final : public BlockwisePass {
 public:
  using Config = SmoothConfig;
  static constexpr std::string_view kName = "quantize.smooth";
  static constexpr std::string_view kSummary =
      "Moves what makes activations hard to round into the weights, before a pass with "
      "activations: 8 (Xiao et al. 2023, arXiv:2211.10438); exponents searched layer by layer.";

  explicit SmoothPass(SmoothConfig config) : config_(std::move(config)) {}
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.calibration = true}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  void see_later(std::span<const PassPlan> plans) override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run_block(BlockWork& work) const override;

 private:
  // Whether the rules and later passes let the input of the group be scaled.
  bool scales(std::int64_t block, const ChannelGroup& group) const;

  SmoothConfig config_;
  std::map<std::pair<std::int64_t, Role>, QuantScheme> later_;  // of layers that will round inputs
};

}  // namespace attar
