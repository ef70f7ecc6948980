#include "distill/lora_pass.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <set>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "compress/train/learning_pass.h"

namespace attar {
namespace {

// A as a linear layer begins (uniform, variance 1 / 3I), times `scale`; B is 0, so that the model
// begins as it was. With A alone scaled, and its rate with it, AdamW makes the steps that it makes
// on (alpha / rank) B A.
LowRankWeight beginning(const std::string& layer, const WeightShape& shape, std::int64_t rank,
                        double scale, std::uint64_t seed) {
  const CounterRandom random(seed, "train.lora " + layer);
  at::Tensor a = at::empty({rank, shape.in}, at::kFloat);
  float* out = a.mutable_data_ptr<float>();
  const double reach = scale / std::sqrt(static_cast<double>(shape.in));
  for (std::int64_t i = 0; i < rank * shape.in; ++i) {
    out[i] = static_cast<float>(reach * (2 * random.uniform(static_cast<std::uint64_t>(i)) - 1));
  }
  return {at::zeros({shape.out, rank}, at::kFloat), a};
}

// Empty for kinds that are factors already.
std::optional<CorrectedWeight> with_term(const Weight& weight, const LowRankWeight& term) {
  if (const auto* plain = std::get_if<DenseWeight>(&weight)) return CorrectedWeight{*plain, term};
  if (const auto* codes = std::get_if<QuantizedWeight>(&weight)) {
    return CorrectedWeight{*codes, term};
  }
  if (const auto* sparse = std::get_if<SparseWeight>(&weight))
    return CorrectedWeight{*sparse, term};
  return std::nullopt;
}

bool in_codes(const Weight& weight) {
  const auto* sum = std::get_if<CorrectedWeight>(&weight);
  return std::holds_alternative<QuantizedWeight>(weight) ||
         (sum != nullptr && std::holds_alternative<QuantizedWeight>(sum->base));
}

// Puts terms beside the layers that the choice names; says in the report where it could not.
// Returns the layers that got one.
std::set<std::string> put_terms(const LoraConfig& config, ModelWork& work) {
  std::set<std::string> fresh;
  for (std::int64_t i = 0; i < work.input.config().layers; ++i) {
    Block block = work.input.block(i);
    for (const Role role : roles_of(block)) {
      if (!decide(config, i, role).changes) continue;
      const std::string layer = layer_name(i, role);
      Weight& weight = block[role].weight;
      const auto corrected = with_term(
          weight, beginning(layer, shape_of(weight), config.rank,
                            config.alpha / static_cast<double>(config.rank), work.context.seed));
      require<UsageError>(!config.merge || !in_codes(weight), layer,
                          "merge: true would undo its codes; keep the terms beside them "
                          "(merge: false), or put train.lora in front of the rounding");
      if (corrected) {
        weight = *corrected;
        fresh.insert(layer);
      } else {
        work.report.skipped.push_back({layer, std::holds_alternative<CorrectedWeight>(weight)
                                                  ? "has a term already, which is trained along"
                                                  : "is factors already; train.text trains those"});
      }
    }
    work.output.put_block(i, block);
    work.input.done_with_block(i);
  }
  return fresh;
}

// What the layer keeps: term and base, or their sum with zeros of a mask left at 0.
Weight settled(const Weight& trained, bool merge) {
  const auto* sum = std::get_if<CorrectedWeight>(&trained);
  if (!merge || sum == nullptr) return trained;
  const Weight base = std::visit([](const auto& w) -> Weight { return w; }, sum->base);
  at::Tensor values = dense(trained);
  if (const at::Tensor kept = kept_positions(base); kept.defined()) values = values * kept;
  return with_values(base, values);
}

}  // namespace

LoraPass::LoraPass(LoraConfig config) : config_(std::move(config)) {
  require<UsageError>(!config_.text.empty(), kName, "text is missing; name a file to learn from");
}

std::vector<PlannedLayer> LoraPass::plan(const ModelConfig& config) const {
  check_length(config_, config, kName);
  std::vector<PlannedLayer> planned = plan_layers(
      config_, config, kName,
      "term of rank " + std::to_string(config_.rank) + (config_.merge ? ", merged" : ""));
  for (PlannedLayer& layer : planned) {
    if (!layer.changes) continue;
    layer.keeps_zeros = true;
    layer.refuses_codes = config_.merge;
    if (config_.merge) continue;
    layer.adds = true;
    const LinearShape shape = shape_of(config, layer.block, layer.role);
    if (shape.empty()) continue;
    layer.parameters = static_cast<double>(config_.rank * (shape.in + shape.out)) /
                       static_cast<double>(shape.in * shape.out);
  }
  return planned;
}

std::int64_t LoraPass::term_bytes(const ModelConfig& config) const {
  std::int64_t values = 0;
  for (const PlannedLayer& layer : plan(config)) {
    const LinearShape shape = shape_of(config, layer.block, layer.role);
    if (layer.changes) values += config_.rank * (shape.in + shape.out);
  }
  return values * 4 * (config_.average > 0 ? 5 : 4);
}

std::int64_t LoraPass::working_bytes(const ModelConfig& config) const {
  return term_bytes(config) + activation_bytes(config, config_.length, config_.recompute);
}

std::int64_t LoraPass::state_bytes(const ModelConfig& config) const {
  return training_state_bytes(term_bytes(config), config_.average > 0);
}

void LoraPass::run(ModelWork& work) const {
  const TrainingWindows windows(
      read_documents({config_.text, config_.separator, config_.end_of_text}, *work.tokenizer),
      config_.length, work.context.seed, config_.shift);
  const std::set<std::string> fresh = put_terms(config_, work);
  const auto chosen = [&](std::int64_t block, Role role) {
    return decide(config_, block, role).changes;
  };
  Learning learning{false, true, false, false};
  learning.leaves_out = [&](std::int64_t block, Role role) { return !chosen(block, role); };
  Student student(work.output, learning);
  constexpr std::string_view kA = ".weight.correction.a";
  for (Parameter& parameter : student.parameters()) {
    const std::string_view name = parameter.name;
    if (!name.ends_with(kA)) continue;
    if (!fresh.contains(std::string(name.substr(0, name.size() - kA.size())))) continue;
    parameter.rate = config_.alpha / static_cast<double>(config_.rank);
  }
  NextToken objective(config_.recompute);
  const nlohmann::json shape = {config_.layers, config_.skip, config_.rank, config_.alpha};
  const TrainOutcome outcome =
      train(student, objective, windows, config_, identity_of(work.input) + shape.dump(),
            work.state, work.context);
  for (std::int64_t i = 0; i < student.config().layers; ++i) {
    Block block = student.block(i, config_.average > 0);
    for (const Role role : roles_of(block)) {
      block[role].weight = settled(block[role].weight, config_.merge && chosen(i, role));
    }
    work.output.put_block(i, block);
  }
  report_training(outcome, windows, work.input, work.output, work.report);
}

}  // namespace attar
