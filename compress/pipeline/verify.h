// Reads an exported model back and compares what it computes with the model that was exported.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "compress/core/model.h"
#include "compress/formats/export.h"

namespace attar {

// Logits of two models on the same tokens.
struct LogitAgreement {
  std::int64_t tokens = 0;
  double max_difference = 0;       // |a - b|, largest
  double max_logit = 0;            // |a|, largest
  double kl_mean = 0, kl_max = 0;  // nats, from a to b
  double top1 = 0;                 // share of equal most likely tokens
  double relative() const { return max_logit > 0 ? max_difference / max_logit : 0; }
};

// Both models block by block, so that one block of each is in memory. ids [N, T] int64. Throws
// NumericRefusal for a logit that is not finite, BadInput when the models differ in shape.
LogitAgreement compare_logits(const Model& a, const Model& b, const at::Tensor& ids,
                              const std::function<void()>& check_stop);

struct VerifyReport {
  std::string path, format;
  LogitAgreement agreement;
  std::string bound;  // which bound was applied, in words
  bool holds = false;
};

// Opens `exported` with open_model. Every linear layer of its blocks must be off by no more than
// its export said; then the logits are judged by how tensors were stored: kept to the bit: largest
// difference below 1e-4 of the largest logit; plain values rounded: mean KL below 1e-3; some
// tensors rounded by a reference quantizer (embedding): mean KL below 2e-2; layers requantized on
// request: finite, KL stated; layers that round what they read: mean KL below 5e-2.
VerifyReport verify_export(const Model& model, const ExportReport& exported,
                           const ExportOptions& options, const at::Tensor& ids,
                           const std::function<void()>& check_stop);

nlohmann::json to_json(const VerifyReport& report);

// Windows to compare on: of a text, else made up. [N, T] int64.
at::Tensor verify_tokens(const ModelConfig& config, const std::vector<std::int32_t>& text_ids,
                         std::int64_t windows = 2, std::int64_t length = 64);

}  // namespace attar
