#include "compress/pipeline/memory_model.h"

#include <algorithm>

#include "compress/linalg/gram.h"
#include "compress/train/token_weights.h"

namespace attar {
namespace {

constexpr std::int64_t kFloat = 4;
constexpr std::int64_t kDouble = 8;
constexpr std::int64_t kMiB = 1 << 20;

// Measured: peak of `attar run` with quantize.gptq on a model of 260 thousand weights (LibTorch's
// libraries as far as they are touched, their buffers), tests/bench/memory.py.
constexpr std::int64_t kProgramBytes = 134 * kMiB;
constexpr std::int64_t kKeptBytes = 32 * kMiB;  // freed tensors (core/allocator.h)
// Measured: what a token of a vocabulary of byte-level BPE costs in memory, `attar inspect`.
constexpr std::int64_t kTokenBytes = 560;
// Of values that an export converts: as they are, in float32, in the file's type.
constexpr std::int64_t kConversionBytes = 40 * kMiB;

std::int64_t program_bytes(const ModelConfig& config) {
  return kProgramBytes + kKeptBytes + kTokenBytes * config.vocabulary;
}

// The mapped embedding: ids lie everywhere in it, and the system maps pages around each.
std::int64_t embedding_bytes(const ModelConfig& config) {
  return config.vocabulary * config.hidden * 2;
}

// And a head of its own, which weights of tokens are worked out with.
std::int64_t head_bytes(const ModelConfig& config) {
  return config.tied_head ? 0 : embedding_bytes(config);
}

// Rows of one batch that a prepared block holds on to (ForwardMemory).
std::int64_t forward_bytes(const ModelConfig& config, std::int64_t rows) {
  const std::int64_t width =
      3 * config.hidden + 2 * config.q_width() + 2 * config.kv_width() + 3 * config.ffn;
  return rows * width * kFloat;
}

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
  std::int64_t count = 0;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    count += block_parameters(config.uniform() ? config : config.of_block(block));
  }
  return count;
}

std::int64_t blockwise_peak_bytes(const ModelConfig& config, const CalibrationShape& calibration,
                                  std::int64_t working_bytes, std::int64_t source_bytes) {
  const std::int64_t lanes = calibration.dense_stream ? 2 : 1;  // changed, and dense beside
  const std::int64_t tokens = calibration.sequences * calibration.length;
  const std::int64_t batch = std::min(calibration.batch, calibration.sequences);
  const std::int64_t widest = std::max(config.hidden, config.q_width());
  const std::int64_t targets = calibration.block_outputs ? tokens * config.hidden * kFloat : 0;
  const std::int64_t activations = lanes * tokens * (config.hidden + widest) * kFloat + targets;
  const std::int64_t codes = block_parameters(config) * 9 / 8;  // of layers that are done
  const std::int64_t always = program_bytes(config) + activations + source_bytes + codes +
                              (tokens > 0 ? embedding_bytes(config) + head_bytes(config) : 0);
  if (tokens == 0) return always + working_bytes;
  // While statistics are summed up: the weights that make them, sums in float64, the newest tokens,
  // and those packed for their product.
  const auto summing = [&](std::int64_t inputs, std::int64_t weights) {
    constexpr std::int64_t kPacked = 2 * kFloat * linalg::GramAccumulator::kStepTokens;
    return lanes * (weights * kFloat + inputs * inputs * kDouble) + inputs * kPacked +
           (lanes - 1) * config.hidden * inputs * kDouble;
  };
  const std::int64_t statistics =
      lanes * forward_bytes(config, batch * calibration.length) +
      std::max(summing(std::max(config.hidden, config.q_width()), block_parameters(config)),
               summing(config.ffn, 2 * config.hidden * config.ffn));  // gate and up alone
  return always + std::max(statistics, working_bytes);
}

std::int64_t weighting_peak_bytes(const ModelConfig& config, std::int64_t length,
                                  std::int64_t source_bytes) {
  return program_bytes(config) + source_bytes + token_weights_bytes(config, length);
}

std::int64_t divergence_peak_bytes(const ModelConfig& config, std::int64_t tokens,
                                   std::int64_t length, std::int64_t heads) {
  const std::int64_t hidden = 2 * tokens * config.hidden * kFloat;
  // One block made ready, as the file has it, and gate and up on their way from one to the other.
  const std::int64_t block = block_parameters(config) * (kFloat + 2) +
                             2 * config.hidden * config.ffn * kFloat +
                             forward_bytes(config, length);
  const std::int64_t head = heads * config.vocabulary * config.hidden * kFloat;
  const std::int64_t logits =
      2 * heads * std::min<std::int64_t>(tokens, 256) * config.vocabulary * kFloat;
  return program_bytes(config) + embedding_bytes(config) + hidden + std::max(block, head + logits);
}

std::int64_t tasks_peak_bytes(const ModelConfig& config, std::int64_t length) {
  const std::int64_t weights =
      (linear_parameters(config) + config.vocabulary * config.hidden) * kFloat;
  const std::int64_t cache = 2 * length * config.kv_width() * config.layers * kFloat;
  const std::int64_t logits = std::min<std::int64_t>(length, 256) * config.vocabulary * kFloat;
  return program_bytes(config) + weights + 2 * cache + logits;
}

std::int64_t export_peak_bytes(const ModelConfig& config) {
  return program_bytes(config) + kConversionBytes +
         std::max(block_parameters(config) * kFloat, embedding_bytes(config));
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
