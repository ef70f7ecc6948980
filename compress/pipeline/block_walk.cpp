#include "compress/pipeline/block_walk.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/kernels/log_softmax/log_softmax.h"

namespace attar {
namespace {

constexpr std::int64_t kHeadRows = 256;  // of logits at a time

using Stats = std::vector<kernels::LogitStats>;

Stats stats_of(const at::Tensor& logits, const std::int64_t* targets) {
  const std::int64_t rows = logits.size(0), vocabulary = logits.size(1);
  Stats stats(static_cast<std::size_t>(rows));
  kernels::log_softmax_stats(
      {logits.const_data_ptr<float>(), rows, vocabulary, vocabulary, targets, stats.data()});
  return stats;
}

// Rows [first, first + count) of the flattened windows, scored against `targets`.
class HeadScorer {
 public:
  HeadScorer(const Model& original, const Model& changed, const at::Tensor& tokens)
      : tokens_(tokens),
        original_(original.head()),
        changed_(original.shared_source() == changed.shared_source() && !changed.outer_changed()
                     ? original_
                     : PreparedWeight(changed.head())) {}

  void score(const at::Tensor& teacher_rows, const at::Tensor& student_rows,
             const std::int64_t* targets, const std::uint8_t* counts,
             eval::WindowDivergence& window) {
    const std::int64_t rows = teacher_rows.size(0), vocabulary = changed_.outputs();
    at::Tensor teacher = rows_of(teacher_logits_, rows, original_.outputs());
    at::Tensor student = rows_of(student_logits_, rows, vocabulary);
    original_.multiply_into(teacher, teacher_rows);
    changed_.multiply_into(student, student_rows);
    Stats whole;
    if (tokens_.defined()) {
      whole = stats_of(teacher, nullptr);
      teacher = at::index_select(teacher, 1, tokens_);
    }
    const Stats teacher_stats = stats_of(teacher, targets);
    const Stats student_stats = stats_of(student, targets);
    std::vector<kernels::RowDivergence> found(teacher_stats.size());
    kernels::divergence({teacher.const_data_ptr<float>(), student.const_data_ptr<float>(), rows,
                         vocabulary, vocabulary, vocabulary, teacher_stats.data(),
                         student_stats.data(), found.data()});
    for (std::size_t row = 0; row < found.size(); ++row) {
      if (counts && counts[row] == 0) continue;
      require<NumericRefusal>(teacher_stats[row].non_finite + student_stats[row].non_finite == 0,
                              "divergence", "a logit of the ",
                              teacher_stats[row].non_finite ? "original" : "changed",
                              " model is not finite; look for NaN weights with 'attar inspect'");
      window.nats.push_back(static_cast<float>(std::max(0.0, found[row].kl)));
      window.same_top += found[row].same_argmax ? 1 : 0;
      window.teacher_log_likelihood += teacher_stats[row].target_log_probability;
      window.model_log_likelihood += student_stats[row].target_log_probability;
      if (whole.empty()) continue;
      window.outside += -std::expm1(teacher_stats[row].log_sum_exp - whole[row].log_sum_exp);
    }
  }

 private:
  static at::Tensor rows_of(at::Tensor& held, std::int64_t rows, std::int64_t vocabulary) {
    if (!held.defined()) held = at::empty({kHeadRows, vocabulary}, at::kFloat);
    return held.narrow(0, 0, rows);
  }

  at::Tensor tokens_;                           // of the original, by token of the changed model
  PreparedWeight original_, changed_;           // [vocabulary, hidden]
  at::Tensor teacher_logits_, student_logits_;  // [kHeadRows, vocabulary], used again
};

// [count] int64; undefined when each token stands for itself.
at::Tensor tokens_of(KeptTokens tokens, const Model& original, const Model& changed) {
  if (tokens.empty()) {
    require_same_vocabulary(original, changed);
    return {};
  }
  require(std::ssize(tokens) == changed.config().vocabulary, changed.source().path(), "has ",
          changed.config().vocabulary, " tokens, and ", tokens.size(), " are told of the original");
  at::Tensor ids = at::empty({std::ssize(tokens)}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), ids.mutable_data_ptr<std::int64_t>());
  return ids;
}

}  // namespace

BlockWalk::BlockWalk(const Model& model, const at::Tensor& ids, CacheType cache)
    : model_(model),
      cache_(cache),
      rope_(rope_table(model.config(), ids.size(1))),
      hidden_(embed(model.embedding(), ids)) {}

void BlockWalk::step() {
  if (next_ == model_.config().layers) return;
  {
    // Not kept for the next block: of two models that walk side by side one at a time is ready.
    BlockRunner runner(model_.config(), model_.block(next_), rope_,
                       std::make_shared<ForwardMemory>(), Arithmetic::kExact, cache_);
    for (std::int64_t window = 0; window < hidden_.size(0); ++window) {
      runner.advance(hidden_.narrow(0, window, 1));
    }
  }
  model_.done_with_block(next_++);
}

at::Tensor BlockWalk::normed(std::int64_t first, std::int64_t count) const {
  return rms_norm(hidden_.flatten(0, 1).narrow(0, first, count), model_.final_norm(),
                  model_.config().norm_eps);
}

void require_same_vocabulary(const Model& a, const Model& b) {
  require(a.config().vocabulary == b.config().vocabulary, b.source().path(), "has ",
          b.config().vocabulary, " tokens and ", a.source().path(), " has ", a.config().vocabulary,
          "; only models with one vocabulary can be compared");
}

std::vector<eval::WindowDivergence> walk_divergence(const Model& original, const Model& changed,
                                                    const ScoredWindows& text, const WalkStep& step,
                                                    KeptTokens tokens, CacheType cache) {
  const at::Tensor& ids = text.ids;
  const at::Tensor mapped = tokens_of(tokens, original, changed);
  const at::Tensor teacher_ids =
      mapped.defined() ? at::index_select(mapped, 0, ids.flatten()).view(ids.sizes()) : ids;
  BlockWalk teacher(original, teacher_ids), student(changed, ids, cache);
  const std::int64_t layers = std::max(original.config().layers, changed.config().layers);
  for (std::int64_t block = 0; block < layers; ++block) {
    step("block");
    teacher.step();
    student.step();
  }
  HeadScorer scorer(original, changed, mapped);
  const std::int64_t length = ids.size(1);
  const auto* targets = ids.const_data_ptr<std::int64_t>() + 1;
  const auto* counts =
      text.counts.defined() ? text.counts.const_data_ptr<std::uint8_t>() + 1 : nullptr;
  std::vector<eval::WindowDivergence> windows(static_cast<std::size_t>(ids.size(0)));
  for (std::int64_t window = 0; window < ids.size(0); ++window) {
    step("window");
    for (std::int64_t first = 0; first < length - 1; first += kHeadRows) {
      const std::int64_t count = std::min(kHeadRows, length - 1 - first);
      const std::int64_t at = window * length + first;
      scorer.score(teacher.normed(at, count), student.normed(at, count), targets + at,
                   counts ? counts + at : nullptr, windows[static_cast<std::size_t>(window)]);
    }
  }
  std::erase_if(windows, [](const auto& window) { return window.nats.empty(); });
  return windows;
}

}  // namespace attar
