// What passes that train a whole model have in common: from options to a student and its text, from
// a trained student to the model in work and the report.
#pragma once

#include <optional>

#include "compress/core/pass.h"
#include "compress/train/trainer.h"

namespace attar {

// What of the model learns: "weights", "scales", "norms", "embedding", "corrections", and "codes"
// of a pass that has a `code_rate` for them, where all codes stay. In the others codes learn by
// their scales, or as plain values where scales do not.
Learning learning_from(const std::vector<std::string>& names, std::string_view where,
                       std::optional<double> code_rate = std::nullopt);

// Scales alone learn: there must be some.
NeededCodes needed_codes(const Learning& learning);

// Throws UsageError for sequences that are longer than the model's positions.
void check_length(const TrainConfig& training, const ModelConfig& config, std::string_view where);

// Every layer, where weights learn; else codes and plain values stay what a file needs to know of.
std::vector<PlannedLayer> plan_learnt_layers(const ModelConfig& config, const Learning& learning,
                                             const std::string& action);
// The same of embedding and head.
PlannedRows plan_learnt_rows(const Learning& learning, const std::string& action);

// Of the linear layers of all blocks.
std::int64_t linear_weights(const ModelConfig& config);

// Bytes that training takes beside activations: values, gradients and moments in float32.
std::int64_t training_bytes(const ModelConfig& config, bool averaged);

// What one micro-batch keeps for its gradients: the graph of all blocks, or of one with
// `recompute`.
std::int64_t activation_bytes(const ModelConfig& config, std::int64_t length, bool recompute);

// On disk of as much: the state, and a new one that is written beside it.
std::int64_t training_state_bytes(std::int64_t training_bytes, bool averaged);

// Names the weights that training starts from, for the state on disk.
std::string identity_of(const Model& model);

// Writes every block, and embedding, final norm and head where they learnt.
void put_trained(const Student& student, bool averaged, Model& output);

// One event each for the start, the end and what went wrong, and a change for every layer.
void report_training(const TrainOutcome& outcome, const TrainingWindows& windows,
                     const Model& input, const Model& output, PassReport& report);
// And one for layers whose term alone learnt, though weights were to.
void report_frozen_bases(const Model& output, const Learning& learning, PassReport& report);

}  // namespace attar
