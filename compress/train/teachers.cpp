#include "compress/train/teachers.h"

#include <sstream>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/hash.h"
#include "compress/kernels/log_softmax/log_softmax.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

// Sum of KL over rows of logits.
double divergence_of(const at::Tensor& teacher, const at::Tensor& model) {
  const std::int64_t rows = teacher.size(0), vocabulary = teacher.size(1);
  const auto *p = teacher.const_data_ptr<float>(), *q = model.const_data_ptr<float>();
  std::vector<kernels::LogitStats> p_stats(static_cast<std::size_t>(rows)), q_stats(p_stats);
  std::vector<kernels::RowDivergence> found(p_stats.size());
  kernels::log_softmax_stats({p, rows, vocabulary, vocabulary, nullptr, p_stats.data()});
  kernels::log_softmax_stats({q, rows, vocabulary, vocabulary, nullptr, q_stats.data()});
  kernels::divergence({p, q, rows, vocabulary, vocabulary, vocabulary, p_stats.data(),
                       q_stats.data(), found.data()});
  double sum = 0;
  for (std::size_t row = 0; row < found.size(); ++row) {
    require<NumericRefusal>(p_stats[row].non_finite + q_stats[row].non_finite == 0, "divergence",
                            "a logit of the ", p_stats[row].non_finite ? "teacher" : "model",
                            " is not finite; look for NaN weights with 'attar inspect'");
    sum += std::max(0.0, found[row].kl);
  }
  return sum;
}

}  // namespace

void Teachers::read(const Batch& batch) {
  if (live) live->read(batch.ids);
  if (cached) cached->read(batch);
}

ResponseTargets Teachers::targets(const Batch& micro, std::int64_t first) const {
  ResponseTargets targets;
  targets.tokens = micro.targets.flatten().contiguous();
  const std::int64_t rows = targets.tokens.size(0);
  if (live) {
    targets.teacher_hidden = live->normed().flatten(0, 1).narrow(0, first, rows);
    targets.teacher_head = live->head();
  }
  if (cached) {
    targets.sparse_ids = cached->ids().narrow(0, first, rows);
    targets.sparse_probabilities = cached->probabilities().narrow(0, first, rows);
    targets.sparse_tail = cached->tail();
  }
  return targets;
}

OpenTeacher open_teacher(const std::string& name, std::string_view where, const Model& input,
                         const Model& original, const Tokenizer* tokenizer) {
  const std::int64_t own = input.config().vocabulary;
  if (name == "original") {
    const std::vector<std::int64_t>& tokens = input.source_tokens();
    if (!tokens.empty()) {  // the vocabulary was trimmed
      io::Sha256 hash;
      hash.update(std::as_bytes(std::span(tokens)));
      return {original, tokens_of_teacher(tokens), original.source().sha256() + ":" + hash.hex()};
    }
    return {original, same_tokenizer(own, original.config().vocabulary),
            original.source().sha256()};
  }
  require<UsageError>(tokenizer != nullptr, where, "a teacher of another file needs a tokenizer");
  const auto source = open_model(name);
  const auto theirs = load_model_tokenizer(name);
  return {Model(source), match_tokens(*tokenizer, own, *theirs, source->config().vocabulary),
          source->sha256()};
}

std::unique_ptr<CachedTeacher> written_teacher(const std::filesystem::path& folder,
                                               const CacheOptions& options,
                                               const TrainingWindows& windows,
                                               const TrainConfig& config,
                                               const std::string& identity, LiveTeacher& live,
                                               PassReport& report, const RunContext& context) {
  const std::string key = cache_key(options, windows, identity);
  const CacheReport cache =
      write_cache(folder, options, windows, config.steps, config.batch, key, live, context);
  std::ostringstream text;
  text << cache.tokens << " tokens of the teacher in " << folder.string() << ", "
       << static_cast<double>(cache.bytes) / static_cast<double>(cache.tokens) << " bytes a token, "
       << cache.written << " shards written now";
  report.events.push_back({"model", "teacher_cache", text.str()});
  return std::make_unique<CachedTeacher>(folder, options, key, windows.length());
}

double mean_divergence(LiveTeacher& teacher, LiveTeacher& model, const at::Tensor& windows) {
  teacher.read(windows);
  model.read(windows);
  const std::int64_t common = std::min(teacher.common(), model.common());
  const at::Tensor p = teacher.normed().flatten(0, 1), q = model.normed().flatten(0, 1);
  const at::Tensor p_head = teacher.head().narrow(0, 0, common);
  const at::Tensor q_head = model.head().narrow(0, 0, common);
  double sum = 0;
  for (std::int64_t first = 0; first < p.size(0); first += kResponseRows) {
    const std::int64_t rows = std::min(kResponseRows, p.size(0) - first);
    sum += divergence_of(linalg::product(p.narrow(0, first, rows), p_head),
                         linalg::product(q.narrow(0, first, rows), q_head));
  }
  return sum / static_cast<double>(p.size(0));
}

}  // namespace attar
