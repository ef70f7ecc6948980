// quantize.fit: a format for every layer, chosen by what it costs in KL.
#pragma once

#include <string>
#include <vector>

#include "compress/calibrate/model_pass.h"
#include "compress/core/layer_choice.h"
#include "quantize/fit.h"

namespace attar {

struct FitConfig : LayerChoiceConfig {
  double bits = 0;
  std::string size;
  double kl = 0;
  nlohmann::json widths = {2, 3, 4, 5, 6, 8};
  nlohmann::json group_sizes = {32, 64, 128};
  bool symmetric = false;
  std::string scale_type = "f16";
  nlohmann::json types = nlohmann::json::array();
  bool embedding = true;
  std::string method = "gptq";
  std::int64_t windows = 32;
  std::int64_t held_out = 8;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = FitConfig;
    visit("bits", &C::bits, Range{0.0, 16.0},
          "Bits a weight in the mean over all that may be rounded: codes, scales and zeros.");
    visit("size", &C::size, Any{},
          "In place of bits: bytes of the whole model as written, such as 80MB.");
    visit("kl", &C::kl, Range{0.0, 100.0},
          "In place of bits: the smallest model whose KL on held-out windows, rounded plainly, is "
          "at most this.");
    visit("widths", &C::widths, Any{}, "Bits of a code to choose from, 2 to 8.");
    visit("group_sizes", &C::group_sizes, Any{},
          "Input columns that share a scale, to choose from; 0: the whole row. Those that do not "
          "divide a layer's columns are left out there.");
    visit("symmetric", &C::symmetric, Any{}, "One scale and no zero point a group.");
    visit("scale_type", &C::scale_type, OneOf{{"f16", "bf16", "f32"}},
          "What a scale is rounded to.");
    visit("types", &C::types, Any{},
          "In place of the four above: GGUF's block types to choose from, [Q3_K, IQ4_NL, Q8_0, "
          "...]; those whose blocks do not divide a layer's columns are left out there.");
    visit("embedding", &C::embedding, Any{},
          "Embedding and head are chosen for as well. compressed-tensors files hold no codes of "
          "an embedding: false for them.");
    visit("method", &C::method, OneOf{{"rtn", "gptq", "awq+gptq", "awq+gptq+autoround"}},
          "What rounds the layers once their formats are chosen.");
    visit("windows", &C::windows, Range<std::int64_t>{1, 1 << 20},
          "Calibration windows that sensitivities are measured on, at most.");
    visit("held_out", &C::held_out, Range<std::int64_t>{1, 1 << 20},
          "Other windows that the choice is held against a uniform one on.");
    layer_fields(visit);
  }
};

class FitPass final : public ModelPass {
 public:
  using Config = FitConfig;
  static constexpr std::string_view kName = "quantize.fit";
  static constexpr std::string_view kSummary =
      "Chooses bits and group size, or the GGUF type, of every layer by the KL that they are "
      "expected to cost (Fisher "
      "diagonal, exact knapsack), holds the choice against a uniform one, then rounds.";

  explicit FitPass(FitConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = true,
            .teacher = true,
            .dense_stream = config_.method != "rtn",
            .block_outputs = config_.method.ends_with("autoround"),
            .statistics = config_.method != "rtn"};
  }
  double learning_tokens(double tokens, std::int64_t length) const override;
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  PlannedRows plan_rows(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  std::string goal() const;
  Formats choose(ModelWork& work) const;
  void round(ModelWork& work, const Formats& formats) const;

  FitConfig config_;
  std::vector<QuantScheme> formats_;
};

}  // namespace attar
