// Whom a student learns from: a model that is run along or was written down, opened by the name
// that a recipe gives, and how far another model's predictions are from it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "compress/core/pass.h"
#include "compress/tokenize/tokenizer.h"
#include "compress/train/live_teacher.h"
#include "compress/train/response_gradient.h"
#include "compress/train/teacher_cache.h"
#include "compress/train/trainer.h"

namespace attar {

// At most one of them.
struct Teachers {
  std::unique_ptr<LiveTeacher> live;
  std::unique_ptr<CachedTeacher> cached;

  // Reads a batch of the student's ids.
  void read(const Batch& batch);
  // Of the micro-batch that begins at row `first` of the batch read last.
  ResponseTargets targets(const Batch& micro, std::int64_t first) const;
};

// A teacher and whose words it speaks.
struct OpenTeacher {
  Model model;
  VocabularyMap map;
  std::string identity;  // of its weights and words
};

// `name` is "original", or a folder or file with another model of the same tokenizer. `input` is
// the student's model, `original` what the run started from; `tokenizer` (of the student) may be
// null for "original". Throws UsageError when it is needed and null.
OpenTeacher open_teacher(const std::string& name, std::string_view where, const Model& input,
                         const Model& original, const Tokenizer* tokenizer);

// A teacher from its probabilities in `folder`; what steps [0, steps) of `config` need and is not
// there is written first, by `live`. Says so in the report.
std::unique_ptr<CachedTeacher> written_teacher(const std::filesystem::path& folder,
                                               const CacheOptions& options,
                                               const TrainingWindows& windows,
                                               const TrainConfig& config,
                                               const std::string& identity, LiveTeacher& live,
                                               PassReport& report, const RunContext& context);

// Mean KL(teacher || model) in nats over all positions of windows [N, T] int64 of the student's
// vocabulary, of which both know the first common() tokens. Throws NumericRefusal when a logit is
// not finite. The same bits for any number of threads.
double mean_divergence(LiveTeacher& teacher, LiveTeacher& model, const at::Tensor& windows);

}  // namespace attar
