#include "compress/pipeline/block_walk.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/kernels/log_softmax/log_softmax.h"

namespace attar {
namespace {

constexpr std::int64_t kHeadRows = 256;  // of logits at a time

// Rows [first, first + count) of the flattened windows, scored against `targets`.
class HeadScorer {
 public:
  HeadScorer(const Model& original, const Model& changed)
      : original_(original.head()),
        changed_(original.shared_source() == changed.shared_source() && !changed.outer_changed()
                     ? original_
                     : PreparedWeight(changed.head())) {}

  void score(const at::Tensor& teacher_rows, const at::Tensor& student_rows,
             const std::int64_t* targets, eval::WindowDivergence& window) {
    const std::int64_t rows = teacher_rows.size(0), vocabulary = original_.outputs();
    at::Tensor teacher = rows_of(teacher_logits_, rows), student = rows_of(student_logits_, rows);
    original_.multiply_into(teacher, teacher_rows);
    changed_.multiply_into(student, student_rows);
    const auto* teacher_data = teacher.const_data_ptr<float>();
    const auto* student_data = student.const_data_ptr<float>();
    std::vector<kernels::LogitStats> teacher_stats(static_cast<std::size_t>(rows));
    std::vector<kernels::LogitStats> student_stats(teacher_stats.size());
    std::vector<kernels::RowDivergence> found(teacher_stats.size());
    kernels::log_softmax_stats(
        {teacher_data, rows, vocabulary, vocabulary, targets, teacher_stats.data()});
    kernels::log_softmax_stats(
        {student_data, rows, vocabulary, vocabulary, targets, student_stats.data()});
    kernels::divergence({teacher_data, student_data, rows, vocabulary, vocabulary, vocabulary,
                         teacher_stats.data(), student_stats.data(), found.data()});
    for (std::size_t row = 0; row < found.size(); ++row) {
      require<NumericRefusal>(teacher_stats[row].non_finite + student_stats[row].non_finite == 0,
                              "divergence", "a logit of the ",
                              teacher_stats[row].non_finite ? "original" : "changed",
                              " model is not finite; look for NaN weights with 'attar inspect'");
      window.nats.push_back(static_cast<float>(std::max(0.0, found[row].kl)));
      window.same_top += found[row].same_argmax ? 1 : 0;
      window.teacher_log_likelihood += teacher_stats[row].target_log_probability;
      window.model_log_likelihood += student_stats[row].target_log_probability;
    }
  }

 private:
  at::Tensor rows_of(at::Tensor& held, std::int64_t rows) const {
    if (!held.defined()) held = at::empty({kHeadRows, original_.outputs()}, at::kFloat);
    return held.narrow(0, 0, rows);
  }

  PreparedWeight original_, changed_;           // [vocabulary, hidden]
  at::Tensor teacher_logits_, student_logits_;  // [kHeadRows, vocabulary], used again
};

}  // namespace

BlockWalk::BlockWalk(const Model& model, const at::Tensor& ids)
    : model_(model),
      rope_(rope_table(model.config(), ids.size(1))),
      hidden_(embed(model.embedding(), ids)) {}

void BlockWalk::step() {
  if (next_ == model_.config().layers) return;
  const Block block = model_.block(next_);
  if (runner_) {
    runner_->take(block);
  } else {
    runner_.emplace(model_.config(), block, rope_);
  }
  for (std::int64_t window = 0; window < hidden_.size(0); ++window) {
    runner_->advance(hidden_.narrow(0, window, 1));
  }
  if (next_ + 1 == model_.config().layers) runner_.reset();
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
                                                    const at::Tensor& ids, const WalkStep& step) {
  require_same_vocabulary(original, changed);
  BlockWalk teacher(original, ids), student(changed, ids);
  const std::int64_t layers = std::max(original.config().layers, changed.config().layers);
  for (std::int64_t block = 0; block < layers; ++block) {
    step("block");
    teacher.step();
    student.step();
  }
  HeadScorer scorer(original, changed);
  const std::int64_t length = ids.size(1);
  const auto* tokens = ids.const_data_ptr<std::int64_t>();
  std::vector<eval::WindowDivergence> windows(static_cast<std::size_t>(ids.size(0)));
  for (std::int64_t window = 0; window < ids.size(0); ++window) {
    step("window");
    for (std::int64_t first = 0; first < length - 1; first += kHeadRows) {
      const std::int64_t count = std::min(kHeadRows, length - 1 - first);
      const std::int64_t at = window * length + first;
      scorer.score(teacher.normed(at, count), student.normed(at, count), tokens + at + 1,
                   windows[static_cast<std::size_t>(window)]);
    }
  }
  return windows;
}

}  // namespace attar
