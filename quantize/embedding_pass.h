// quantize.embedding: embedding and head in codes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compress/calibrate/model_pass.h"
#include "quantize/scheme_rules.h"

namespace attar {

struct EmbeddingConfig : GridConfig {
  std::string method = "gptq";
  double damping = 0.1;

  template <class Visit>
  static void fields(Visit&& visit) {
    grid_fields(visit);
    using C = EmbeddingConfig;
    visit("method", &C::method, OneOf{{"gptq", "rtn"}},
          "gptq: errors of a row are moved onto its columns still free, by the states that enter "
          "the head. rtn: least squared error of each group alone; an embedding that is not the "
          "head is always rounded so.");
    visit("damping", &C::damping, Range{0.0, 100.0},
          "Share of mean(diag H) added to diag H. Of a tied embedding also what its rows as inputs "
          "count for beside their logits.");
  }
};

class EmbeddingPass final : public ModelPass {
 public:
  using Config = EmbeddingConfig;
  static constexpr std::string_view kName = "quantize.embedding";
  static constexpr std::string_view kSummary =
      "Rounds embedding and head (GPTQ, arXiv:2210.17323, on the states that enter the head); the "
      "last of the passes that round.";

  explicit EmbeddingPass(EmbeddingConfig config) : config_(std::move(config)) {
    check_grid(config_, std::string(kName));
  }
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.calibration = config_.method == "gptq"}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  PlannedRows plan_rows(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  // Empty: it stays as it is.
  std::optional<QuantScheme> scheme(const ModelConfig& config, const std::string& layer) const;
  Weight rounded(ModelWork& work, const std::string& layer, const Weight& weight,
                 const at::Tensor& hessian) const;

  EmbeddingConfig config_;
};

}  // namespace attar
