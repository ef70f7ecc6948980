#include "compress/pipeline/memory_model.h"

#include <algorithm>

namespace attar {
namespace {

constexpr std::int64_t kFloat = 4;
constexpr std::int64_t kMiB = 1 << 20;

// Measured on the program itself: LibTorch's libraries as far as they are touched, the tokenizer.
constexpr std::int64_t kProgramBytes = 230 * kMiB;

}  // namespace

std::int64_t block_parameters(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const Role role : kRoles) {
    const LinearShape shape = shape_of(config, role);
    count += shape.out * shape.in;
  }
  return count;
}

std::int64_t linear_parameters(const ModelConfig& config) {
  return block_parameters(config) * config.layers;
}

std::int64_t base_bytes() { return kProgramBytes; }

std::int64_t blockwise_peak_bytes(const ModelConfig& config, const CalibrationShape& calibration,
                                  std::int64_t working_bytes, std::int64_t source_bytes) {
  const std::int64_t tokens = calibration.sequences * calibration.length;
  const std::int64_t widest = std::max(config.hidden, config.q_width());
  const std::int64_t lanes = calibration.dense_stream ? 2 : 1;  // changed, and dense beside
  const std::int64_t activations = lanes * tokens * (config.hidden + widest) * kFloat;
  const std::int64_t batch = std::min(calibration.batch, calibration.sequences);
  // Of one batch: joined q|k|v and attention output, or gate|up and their product.
  const std::int64_t wide = std::max(config.q_width() * 2 + 2 * config.kv_width() + config.hidden,
                                     3 * config.ffn + config.hidden);
  const std::int64_t temporaries = lanes * batch * calibration.length * wide * kFloat;
  const std::int64_t prepared = lanes * block_parameters(config) * kFloat;
  return kProgramBytes + activations + temporaries + prepared + 2 * source_bytes + working_bytes;
}

std::int64_t divergence_peak_bytes(const ModelConfig& config, std::int64_t tokens,
                                   std::int64_t heads) {
  const std::int64_t hidden = 2 * tokens * config.hidden * kFloat;
  const std::int64_t prepared = 2 * block_parameters(config) * kFloat;
  const std::int64_t head = heads * config.vocabulary * config.hidden * kFloat;
  const std::int64_t logits = 2 * std::min<std::int64_t>(tokens, 256) * config.vocabulary * kFloat;
  return kProgramBytes + hidden + std::max(prepared, head + logits);
}

std::int64_t tasks_peak_bytes(const ModelConfig& config, std::int64_t length) {
  const std::int64_t weights =
      (linear_parameters(config) + config.vocabulary * config.hidden) * kFloat;
  const std::int64_t cache = 2 * length * config.kv_width() * config.layers * kFloat;
  const std::int64_t logits = std::min<std::int64_t>(length, 256) * config.vocabulary * kFloat;
  return kProgramBytes + weights + 2 * cache + logits;
}

std::int64_t export_peak_bytes(const ModelConfig& config) {
  const std::int64_t tensor = std::max(block_parameters(config) * 2 * kFloat,
                                       config.vocabulary * config.hidden * 2 * kFloat);
  return kProgramBytes + tensor;
}

double forward_flops(const ModelConfig& config, std::int64_t length) {
  const double products = 2.0 * static_cast<double>(linear_parameters(config));
  const double attention = 2.0 * static_cast<double>(config.q_width() * length * config.layers);
  return products + attention;
}

double head_flops(const ModelConfig& config) {
  return 2.0 * static_cast<double>(config.vocabulary * config.hidden);
}

}  // namespace attar
