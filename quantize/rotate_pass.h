// quantize.rotate: in front of passes that round, the model in a basis where no channel stands out.
#pragma once

#include "compress/calibrate/model_pass.h"

namespace attar {

struct RotateConfig {
  bool stream = true;
  bool heads = true;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = RotateConfig;
    visit("stream", &C::stream, Any{},
          "R1: the residual stream. Norms become 1; a tied head becomes a matrix of its own.");
    visit("heads", &C::heads, Any{}, "R2: the channels of every value head.");
  }
};

class RotatePass final : public ModelPass {
 public:
  using Config = RotateConfig;
  static constexpr std::string_view kName = "quantize.rotate";
  static constexpr std::string_view kSummary =
      "Turns the residual stream and the value heads by random Hadamard matrices, so that no "
      "channel stands out (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456); the model computes the "
      "same. Behind pruning and low rank, in front of what rounds.";

  explicit RotatePass(RotateConfig config);
  std::string_view name() const override { return kName; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  PlannedRows plan_rows(const ModelConfig& config) const override;
  ModelConfig shape_after(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  RotateConfig config_;
};

}  // namespace attar
