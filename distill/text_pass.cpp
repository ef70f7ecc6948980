#include "distill/text_pass.h"

#include "compress/core/errors.h"
#include "compress/train/learning_pass.h"

namespace attar {

TextPass::TextPass(TextPassConfig config)
    : config_(std::move(config)), learning_(learning_from(config_.learn, kName)) {
  require<UsageError>(!config_.text.empty(), kName, "text is missing; name a file to learn from");
}

Needs TextPass::needs() const { return {.tokenizer = true, .codes = needed_codes(learning_)}; }

std::vector<PlannedLayer> TextPass::plan(const ModelConfig& config) const {
  check_length(config_, config, kName);
  return plan_learnt_layers(config, learning_, "trained");
}

PlannedRows TextPass::plan_rows(const ModelConfig& /*config*/) const {
  return plan_learnt_rows(learning_, "trained");
}

std::int64_t TextPass::working_bytes(const ModelConfig& config) const {
  return training_bytes(config, config_.average > 0) +
         activation_bytes(config, config_.length, config_.recompute);
}

std::int64_t TextPass::state_bytes(const ModelConfig& config) const {
  const bool averaged = config_.average > 0;
  return learning_.weights ? training_state_bytes(training_bytes(config, averaged), averaged) : 0;
}

void TextPass::run(ModelWork& work) const {
  const TrainingWindows windows(
      read_documents({config_.text, config_.separator, config_.end_of_text}, *work.tokenizer),
      config_.length, work.context.seed, config_.shift);
  Student student(work.input, learning_);
  NextToken objective(config_.recompute);
  const TrainOutcome outcome = train(student, objective, windows, config_, identity_of(work.input),
                                     work.state, work.context);
  put_trained(student, config_.average > 0, work.output);
  report_training(outcome, windows, work.input, work.output, work.report);
  report_frozen_bases(work.output, learning_, work.report);
}

}  // namespace attar
