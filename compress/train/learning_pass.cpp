#include "compress/train/learning_pass.h"

#include <sstream>

#include "compress/core/errors.h"

namespace attar {
namespace {

std::string means_of(const TrainedStep& step) {
  std::ostringstream text;
  text.precision(5);
  for (const ObjectiveTerm& term : step.means) {
    text << (text.tellp() > 0 ? ", " : "") << term.name << ' ' << term.sum;
  }
  return text.str();
}

std::string course_of(const TrainOutcome& outcome) {
  std::ostringstream text;
  text.precision(4);
  const std::size_t every = std::max<std::size_t>(1, outcome.history.size() / 20);
  for (std::size_t i = 0; i < outcome.history.size(); i += every) {
    const TrainedStep& step = outcome.history[i];
    text << (i == 0 ? "loss by step: " : ", ") << step.step + 1 << ": " << step.means.front().sum;
  }
  return text.str();
}

}  // namespace

Learning learning_from(const std::vector<std::string>& names, std::string_view where,
                       std::optional<double> code_rate) {
  Learning learning{false, false, false, false, false, false};
  for (const std::string& name : names) {
    bool* part = name == "weights"              ? &learning.weights
                 : name == "scales"             ? &learning.scales
                 : name == "norms"              ? &learning.norms
                 : name == "embedding"          ? &learning.embedding
                 : name == "corrections"        ? &learning.corrections
                 : name == "codes" && code_rate ? &learning.codes
                                                : nullptr;
    require<UsageError>(part != nullptr, where, "learn: unknown part '", name,
                        "'; known: weights, scales, norms, embedding, corrections",
                        code_rate ? ", codes" : "");
    *part = true;
  }
  learning.code_rate = code_rate.value_or(1);
  learning.from_codes = !code_rate && !learning.scales;
  return learning;
}

NeededCodes needed_codes(const Learning& learning) {
  const bool others =
      learning.weights || learning.norms || learning.embedding || learning.corrections;
  return learning.scales && !others ? NeededCodes::kAny : NeededCodes::kNone;
}

void check_length(const TrainConfig& training, const ModelConfig& config, std::string_view where) {
  require<UsageError>(training.length <= config.max_positions, where, "length ", training.length,
                      " exceeds the model's ", config.max_positions, " positions; lower length");
}

std::vector<PlannedLayer> plan_learnt_layers(const ModelConfig& config, const Learning& learning,
                                             const std::string& action) {
  std::vector<PlannedLayer> layers = plan_every_layer(config, action);
  for (PlannedLayer& layer : layers) {
    layer.plain_only = !learning.from_codes;
    layer.keeps_form = layer.keeps_zeros = true;
  }
  if (learning.weights) return layers;
  const std::string what = learning.scales        ? "only its scales learn"
                           : learning.corrections ? "only its correction learns"
                                                  : "unchanged";
  for (PlannedLayer& layer : layers) {
    layer.changes = false;
    layer.action = what;
  }
  return layers;
}

PlannedRows plan_learnt_rows(const Learning& learning, const std::string& action) {
  if (!learning.embedding) return {};
  return {.action = action, .plain = true, .plain_only = !learning.from_codes};
}

std::int64_t linear_weights(const ModelConfig& config) {
  std::int64_t weights = 0;
  for (std::int64_t i = 0; i < config.layers; ++i) {
    for (const Role role : kRoles) {
      const LinearShape shape = shape_of(config, i, role);
      weights += shape.out * shape.in;
    }
  }
  return weights;
}

std::int64_t training_bytes(const ModelConfig& config, bool averaged) {
  const std::int64_t values =
      linear_weights(config) + config.vocabulary * config.hidden * (config.tied_head ? 1 : 2);
  return values * 4 * (averaged ? 5 : 4);
}

std::int64_t activation_bytes(const ModelConfig& config, std::int64_t length, bool recompute) {
  // Inputs of norms and layers, queries, keys and values before and after their rotation, what
  // attention gives, gate, up and their product.
  const std::int64_t block =
      4 * config.hidden + 3 * (config.q_width() + config.kv_width()) + 3 * config.ffn;
  const std::int64_t a_token =
      (recompute ? 1 : config.layers) * block + config.layers * config.hidden;
  return 4 * std::max(kMicroTokens, length) * a_token;
}

std::int64_t training_state_bytes(std::int64_t training_bytes, bool averaged) {
  return 2 * training_bytes * (averaged ? 4 : 3) / (averaged ? 5 : 4);  // gradients are not in it
}

std::string identity_of(const Model& model) {
  std::string changed;
  for (std::int64_t i = 0; i < model.config().layers; ++i) changed += model.changed(i) ? '1' : '0';
  return model.source().sha256() + ":" + changed;
}

void put_trained(const Student& student, bool averaged, Model& output) {
  const ModelConfig& config = student.config();
  OuterWeights outer{student.embedding(averaged), student.final_norm(averaged), std::nullopt};
  if (!config.tied_head) outer.head = student.head_weight(averaged);
  output.put_outer(outer);
  for (std::int64_t i = 0; i < config.layers; ++i) output.put_block(i, student.block(i, averaged));
}

void report_training(const TrainOutcome& outcome, const TrainingWindows& windows,
                     const Model& input, const Model& output, PassReport& report) {
  const auto event = [&](const char* kind, const std::string& text, bool fallback = false) {
    report.events.push_back({"model", kind, text, fallback});
  };
  std::ostringstream text;
  text << windows.tokens().ids.size() << " tokens in " << windows.tokens().documents
       << " documents, " << windows.count() << " windows of " << windows.length();
  event("training_text", text.str());
  if (outcome.resumed_at > 0) {
    event("training_resumed", "goes on behind step " + std::to_string(outcome.resumed_at));
  } else if (!outcome.note.empty()) {
    event("training_restarted",
          "from the first step; of the state of an interrupted run " + outcome.note);
  }
  if (!outcome.history.empty()) {
    event("training", "first step: " + means_of(outcome.history.front()) +
                          "; last step: " + means_of(outcome.history.back()));
    event("training_course", course_of(outcome));
  }
  if (outcome.tokens > 0) {
    std::ostringstream speed;
    speed.precision(6);
    speed << outcome.tokens << " tokens in " << outcome.seconds << " seconds, "
          << outcome.processor_seconds << " processor seconds";
    event("training_speed", speed.str());
  }
  if (outcome.skipped > 0) {
    event("nonfinite_gradient",
          std::to_string(outcome.skipped) + " steps had no finite gradient and changed nothing",
          true);
  }
  std::int64_t undone = 0;
  const auto leaves_codes = [&](const Weight& before, const Weight& after) {
    undone += std::holds_alternative<QuantizedWeight>(before) &&
              std::holds_alternative<DenseWeight>(after);
  };
  leaves_codes(input.embedding(), output.embedding());
  if (!input.config().tied_head) leaves_codes(input.head(), output.head());
  for (std::int64_t i = 0; i < output.config().layers; ++i) {
    const Block before = input.block(i), after = output.block(i);
    for (const Role role : roles_of(after)) {
      leaves_codes(before[role].weight, after[role].weight);
      report.changed.push_back({layer_name(i, role), "trained", stored_bytes(before[role].weight),
                                stored_bytes(after[role].weight)});
    }
  }
  if (undone > 0) {
    event("codes_undone", std::to_string(undone) +
                              " of the weights were in codes and have learnt as plain values; "
                              "round them again behind this pass");
  }
}

void report_frozen_bases(const Model& output, const Learning& learning, PassReport& report) {
  std::int64_t frozen = 0;
  for (std::int64_t i = 0; learning.weights && i < output.config().layers; ++i) {
    const Block block = output.block(i);
    for (const Role role : roles_of(block)) {
      frozen += std::holds_alternative<CorrectedWeight>(block[role].weight);
    }
  }
  if (frozen == 0) return;
  report.events.push_back({"model", "bases_kept",
                           std::to_string(frozen) +
                               " layers have a low-rank term beside their weights: the term has "
                               "learnt, the weights beneath have not"});
}

}  // namespace attar
