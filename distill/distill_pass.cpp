#include "distill/distill_pass.h"

#include <sstream>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/hash.h"
#include "distill/distillation.h"
#include "distill/learning_pass.h"

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

// The teacher and whose words it speaks.
struct OpenTeacher {
  Model model;
  VocabularyMap map;
  std::string identity;
};

OpenTeacher open_teacher(const std::string& name, const ModelWork& work) {
  const std::int64_t own = work.input.config().vocabulary;
  if (name == "original") {
    const std::vector<std::int64_t>& tokens = work.input.source_tokens();
    if (!tokens.empty()) {  // the vocabulary was trimmed
      io::Sha256 hash;
      hash.update(std::as_bytes(std::span(tokens)));
      return {work.original, tokens_of_teacher(tokens),
              work.original.source().sha256() + ":" + hash.hex()};
    }
    return {work.original, same_tokenizer(own, work.original.config().vocabulary),
            work.original.source().sha256()};
  }
  const auto source = open_model(name);
  const auto tokenizer = load_model_tokenizer(name);
  return {Model(source),
          match_tokens(*work.tokenizer, own, *tokenizer, source->config().vocabulary),
          source->sha256()};
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
    blocks.push_back(RelationLoss::teacher_block_of(part, layers));
  }
  return std::make_unique<LiveTeacher>(open.model, open.map, boundaries, blocks);
}

}  // namespace

DistillPass::DistillPass(DistillConfig config)
    : config_(std::move(config)),
      losses_(read_losses(config_.loss, std::string(kName) + ".loss")),
      learning_(learning_from(config_.learn, kName)) {
  require<UsageError>(!config_.text.empty(), kName, "text is missing; name a file to learn from");
  if (!config_.cache.empty()) {
    losses_ = cached_losses(std::move(losses_));
    config_.shift = false;  // what was written down belongs to fixed windows
  }
}

std::vector<PlannedLayer> DistillPass::plan(const ModelConfig& config) const {
  return plan_every_layer(config, "distilled");
}

std::int64_t DistillPass::working_bytes(const ModelConfig& config) const {
  return training_bytes(config, config_.average > 0);
}

void DistillPass::run(ModelWork& work) const {
  const TrainingWindows windows(
      read_documents({config_.text, config_.separator, config_.end_of_text}, *work.tokenizer),
      config_.length, work.context.seed, config_.shift);
  Teachers teachers;
  std::string identity;
  if (losses_.needs_teacher()) {
    const OpenTeacher open = open_teacher(config_.teacher, work);
    identity = open.identity;
    teachers.live = live_teacher(open, losses_, work.input.config());
    if (!config_.cache.empty()) {
      const CacheOptions options{config_.cache_kind, config_.cache_count, work.context.seed};
      const std::string key = cache_key(options, windows, identity);
      const CacheReport cache = write_cache(config_.cache, options, windows, config_.steps,
                                            config_.batch, key, *teachers.live, work.context);
      std::ostringstream text;
      text << cache.tokens << " tokens of the teacher in " << config_.cache << ", "
           << static_cast<double>(cache.bytes) / static_cast<double>(cache.tokens)
           << " bytes a token, " << cache.written << " shards written now";
      work.report.events.push_back({"model", "teacher_cache", text.str()});
      teachers.live.reset();
      teachers.cached =
          std::make_unique<CachedTeacher>(config_.cache, options, key, config_.length);
    }
  }
  Student student(work.input, learning_);
  Distillation objective(losses_, std::move(teachers), student, windows.batch(0, config_.batch),
                         config_.recompute);
  objective.set_fingerprint(config_.loss.dump() + identity + config_.cache_kind +
                            std::to_string(config_.cache.empty() ? 0 : config_.cache_count));
  const TrainOutcome outcome = train(student, objective, windows, config_, identity_of(work.input),
                                     work.state, work.context);
  put_trained(student, config_.average > 0, work.output);
  report_training(outcome, windows, work.input, work.output, work.report);
}

}  // namespace attar
