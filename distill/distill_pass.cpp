#include "distill/distill_pass.h"

#include "compress/core/errors.h"
#include "compress/train/learning_pass.h"
#include "distill/distillation.h"

namespace attar {
namespace {

// What a cached distribution can be used for.
LossPlan cached_losses(LossPlan plan) {
  require<UsageError>(plan.hidden.empty() && plan.relations.empty(), DistillPass::kName,
                      "hidden and relation need the teacher itself; leave cache out");
  for (ResponsePart& part : plan.responses) {
    if (part.term.kind == ResponseKind::cross_entropy) continue;
    require<UsageError>(part.term.kind == ResponseKind::forward_kl && part.term.temperature == 1,
                        DistillPass::kName, "a cache serves forward_kl at temperature 1, not ",
                        part.name, "; leave cache out");
    part.term.kind = ResponseKind::sparse_kl;
  }
  return plan;
}

std::unique_ptr<LiveTeacher> live_teacher(const OpenTeacher& open, const LossPlan& losses,
                                          const ModelConfig& student) {
  std::vector<std::int64_t> boundaries, blocks;
  const std::int64_t layers = open.model.config().layers;
  for (const HiddenPart& part : losses.hidden) {
    for (const std::int64_t boundary : boundaries_of(part, student.layers)) {
      boundaries.push_back(HiddenLoss::teacher_boundary(boundary, student.layers, layers));
    }
  }
  for (const RelationPart& part : losses.relations) {
    blocks.push_back(RelationLoss::teacher_block_of(part, open.model.config()));
  }
  return std::make_unique<LiveTeacher>(open.model, open.map, boundaries, blocks);
}

}  // namespace

DistillPass::DistillPass(DistillConfig config)
    : config_(std::move(config)),
      losses_(read_losses(config_.loss, std::string(kName) + ".loss")),
      learning_(learning_from(config_.learn, kName)) {
  require<UsageError>(!config_.text.empty(), kName, "text is missing; name a file to learn from");
  if (!losses_.needs_teacher()) {
    refuse_idle(config_, {"teacher"}, kName, "cross_entropy asks no teacher: leave it out");
  }
  require<UsageError>(config_.on_policy > 0 || (config_.prompt == 0 && config_.temperature == 1),
                      kName, "prompt and temperature say how the student writes; set on_policy");
  if (config_.on_policy > 0) {
    require<UsageError>(config_.prompt < config_.length, kName, "prompt must be below length ",
                        config_.length, ", got ", config_.prompt);
    require<UsageError>(losses_.relations.empty(), kName,
                        "relation compares whole windows, prompts of the text included; leave it "
                        "or on_policy out");
    require<UsageError>(config_.cache.empty(), kName,
                        "what the student will write is not known beforehand, so a cache cannot "
                        "hold it; leave cache or on_policy out");
    for (const ResponsePart& part : losses_.responses) {
      require<UsageError>(part.term.kind != ResponseKind::cross_entropy, kName,
                          "cross_entropy would teach the student its own words; leave it or "
                          "on_policy out");
    }
  }
  if (!config_.cache.empty()) {
    losses_ = cached_losses(std::move(losses_));
    config_.shift = false;  // what was written down belongs to fixed windows
  }
}

Needs DistillPass::needs() const {
  return {.teacher = true, .tokenizer = true, .codes = needed_codes(learning_)};
}

std::vector<PlannedLayer> DistillPass::plan(const ModelConfig& config) const {
  check_length(config_, config, kName);
  return plan_learnt_layers(config, learning_, "distilled");
}

PlannedRows DistillPass::plan_rows(const ModelConfig& /*config*/) const {
  return plan_learnt_rows(learning_, "distilled");
}

std::int64_t DistillPass::working_bytes(const ModelConfig& config) const {
  // To write, the student's weights are made ready beside values, gradients and two moments.
  const std::int64_t own = config_.on_policy > 0 ? training_bytes(config, false) / 2 : 0;
  const std::int64_t head = losses_.needs_teacher() ? 4 * config.vocabulary * config.hidden : 0;
  return training_bytes(config, config_.average > 0) + own + head +
         activation_bytes(config, config_.length, config_.recompute);
}

std::int64_t DistillPass::state_bytes(const ModelConfig& config) const {
  const bool averaged = config_.average > 0;
  return learning_.weights ? training_state_bytes(training_bytes(config, averaged), averaged) : 0;
}

void DistillPass::run(ModelWork& work) const {
  const TrainingWindows windows(
      read_documents({config_.text, config_.separator, config_.end_of_text}, *work.tokenizer),
      config_.length, work.context.seed, config_.shift);
  Teachers teachers;
  std::string identity;
  if (losses_.needs_teacher()) {
    const OpenTeacher open =
        open_teacher(config_.teacher, kName, work.input, work.original, work.tokenizer);
    identity = open.identity;
    teachers.live = live_teacher(open, losses_, work.input.config());
    if (!config_.cache.empty()) {
      const CacheOptions options{config_.cache_kind, config_.cache_count, work.context.seed};
      teachers.cached = written_teacher(config_.cache, options, windows, config_, identity,
                                        *teachers.live, work.report, work.context);
      teachers.live.reset();
    }
  }
  Student student(work.input, learning_);
  const std::int64_t common = teachers.live ? teachers.live->common() : 0;
  // A projection has as many rows to be fitted to as it needs, whatever the batch.
  const std::int64_t fitted = losses_.hidden.empty() ? 0 : 8 * work.input.config().hidden;
  const std::int64_t looked_at =
      std::max(config_.batch, (fitted + config_.length - 1) / config_.length);
  Distillation objective(losses_, std::move(teachers), student, windows.batch(0, looked_at),
                         config_.recompute, [&] { work.context.check_stop(); });
  const SampleOptions samples{config_.on_policy, config_.prompt, config_.temperature};
  if (samples.share > 0) {
    objective.learn_from(StudentSamples(work.input, samples, common, work.context.seed));
  }
  const nlohmann::json decides = {samples.share, samples.prompt, samples.temperature};
  objective.set_fingerprint(config_.loss.dump() + identity + config_.cache_kind +
                            std::to_string(config_.cache.empty() ? 0 : config_.cache_count) +
                            (samples.share > 0 ? decides.dump() : ""));
  const TrainOutcome outcome = train(student, objective, windows, config_, identity_of(work.input),
                                     work.state, work.context);
  put_trained(student, config_.average > 0, work.output);
  report_training(outcome, windows, work.input, work.output, work.report);
  report_frozen_bases(work.output, learning_, work.report);
}

}  // namespace attar
