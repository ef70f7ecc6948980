#include "compress/pipeline/verify.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include <cmath>
#include <limits>
#include <map>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/linalg/product.h"
#include "compress/pipeline/block_walk.h"

namespace attar {
namespace {

void add_row(const float* a, const float* b, const float* log_a, const float* log_b,
             std::int64_t width, LogitAgreement& found) {
  std::int64_t best_a = 0, best_b = 0;
  double kl = 0;
  for (std::int64_t i = 0; i < width; ++i) {
    found.max_difference = std::max(found.max_difference, std::abs(double{a[i]} - b[i]));
    found.max_logit = std::max(found.max_logit, std::abs(double{a[i]}));
    if (a[i] > a[best_a]) best_a = i;
    if (b[i] > b[best_b]) best_b = i;
    kl += std::exp(double{log_a[i]}) * (double{log_a[i]} - log_b[i]);
  }
  require<NumericRefusal>(std::isfinite(kl), "verify",
                          "a logit is not finite; look for NaN weights "
                          "with 'attar inspect'");
  found.kl_mean += kl;
  found.kl_max = std::max(found.kl_max, kl);
  found.top1 += best_a == best_b ? 1 : 0;
}

LogitAgreement agreement(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor log_a = at::log_softmax(a, 1), log_b = at::log_softmax(b, 1);
  const std::int64_t rows = a.size(0), width = a.size(1);
  LogitAgreement found;
  found.tokens = rows;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at = row * width;
    add_row(a.const_data_ptr<float>() + at, b.const_data_ptr<float>() + at,
            log_a.const_data_ptr<float>() + at, log_b.const_data_ptr<float>() + at, width, found);
  }
  found.kl_mean /= static_cast<double>(rows);
  found.top1 /= static_cast<double>(rows);
  return found;
}

}  // namespace

LogitAgreement compare_logits(const Model& a, const Model& b, const at::Tensor& ids,
                              const std::function<void()>& check_stop) {
  require_same_vocabulary(a, b);
  BlockWalk first(a, ids), second(b, ids);
  const std::int64_t layers = std::max(a.config().layers, b.config().layers);
  for (std::int64_t index = 0; index < layers; ++index) {
    check_stop();
    first.step();
    second.step();
  }
  const std::int64_t rows = ids.numel();
  // One head after the other is in memory.
  const at::Tensor logits = linalg::product(first.normed(0, rows), dense(a.head()));
  return agreement(logits, linalg::product(second.normed(0, rows), dense(b.head())));
}

namespace {

// The first linear layer whose values, read back, are off by more than its export said; empty where
// there is none. What a file's own quantizer makes of a layer may cost any KL, but not be another
// layer's.
std::string layer_that_is_another(const Model& model, const Model& reloaded,
                                  const ExportReport& exported,
                                  const std::function<void()>& check_stop) {
  std::map<std::string, double> said;
  for (const TensorExport& tensor : exported.tensors) {
    // What rounding a factor moves is multiplied by the other one: not known.
    const bool of_factor = tensor.how == "low-rank term" && tensor.max_difference > 0;
    double& bound = said[tensor.layer];
    bound = of_factor ? std::numeric_limits<double>::infinity()
                      : std::max(bound, tensor.max_difference);
  }
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    check_stop();
    const Block written = model.block(i), read = reloaded.block(i);
    for (const Role role : roles_of(written)) {
      const auto bound = said.find(layer_name(i, role));
      if (bound == said.end()) continue;
      const at::Tensor values = dense(written[role].weight);
      const double largest = values.abs().max().item<double>();
      const double off = (values - dense(read[role].weight)).abs().max().item<double>();
      if (!(off <= bound->second + 1e-5 * largest)) return bound->first;
    }
    reloaded.done_with_block(i);
    model.done_with_block(i);
  }
  return {};
}

}  // namespace

VerifyReport verify_export(const Model& model, const ExportReport& exported,
                           const ExportOptions& options, const at::Tensor& ids,
                           const std::function<void()>& check_stop) {
  VerifyReport report;
  report.path = exported.path.string();
  report.format = to_string(options.format);
  const Model reloaded(open_model(exported.path));
  report.agreement = compare_logits(model, reloaded, ids, check_stop);
  if (const std::string other = layer_that_is_another(model, reloaded, exported, check_stop);
      !other.empty()) {
    report.bound = "every layer as it was written; " + other + " is not";
    return report;
  }

  bool exact = true, requantized = false, coarse = false, activations = false;
  for (const TensorExport& tensor : exported.tensors) {
    exact = exact && tensor.max_difference == 0;
    activations = activations || tensor.rounds_input;
    requantized = requantized || tensor.rounds();
    coarse = coarse || (tensor.rounds() && tensor.type != "Q8_0");
  }
  const LogitAgreement& found = report.agreement;
  if (activations) {  // the last bit of a sum moves one of them to its next value, and so on
    report.bound = "mean KL below 0.05 (activations are rounded)";
    report.holds = found.kl_mean < 0.05;
  } else if (exact) {
    report.bound = "logits equal within 1e-4 of the largest";
    report.holds = found.relative() <= 1e-4;
  } else if (options.requantize) {
    report.bound = "requantized on request: finite";
    report.holds = true;
  } else if (coarse) {  // what that costs is for the evaluation to say
    report.bound = "some tensors rounded to fewer than 8 bits by the file's own quantizer: finite";
    report.holds = true;
  } else if (requantized) {
    report.bound = "mean KL below 0.02 (some tensors rounded by the type's reference quantizer)";
    report.holds = found.kl_mean < 0.02;
  } else {
    report.bound = "mean KL below 0.001 (plain values rounded to the file's type)";
    report.holds = found.kl_mean < 1e-3;
  }
  return report;
}

nlohmann::json to_json(const VerifyReport& report) {
  const LogitAgreement& found = report.agreement;
  return {{"path", report.path},          {"format", report.format},
          {"tokens", found.tokens},       {"max_difference", found.max_difference},
          {"max_logit", found.max_logit}, {"kl_mean", found.kl_mean},
          {"kl_max", found.kl_max},       {"top1", found.top1},
          {"bound", report.bound},        {"holds", report.holds}};
}

at::Tensor verify_tokens(const ModelConfig& config, const std::vector<std::int32_t>& text_ids,
                         std::int64_t windows, std::int64_t length) {
  length = std::min(length, config.max_positions);
  at::Tensor ids = at::empty({windows, length}, at::kLong);
  auto* out = ids.mutable_data_ptr<std::int64_t>();
  for (std::int64_t at = 0; at < windows * length; ++at) {
    const bool has_text = static_cast<std::size_t>(windows * length) <= text_ids.size();
    out[at] =
        has_text ? text_ids[static_cast<std::size_t>(at)] : (7 + at * 7919) % config.vocabulary;
  }
  return ids;
}

}  // namespace attar
