// What evaluation and distillation ask of rows of logits, without storing a softmax.
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

// Non-finite logits are counted and otherwise left out of maximum, argmax and log_sum_exp.
struct LogitStats {
  double log_sum_exp;             // natural; error <= 1e-6; -inf if no logit is finite
  double target_log_probability;  // logit[target] - log_sum_exp; NaN without a target
  std::int64_t argmax;            // the lowest index on ties; -1 if no logit is finite
  std::int64_t non_finite;        // how many logits are NaN or infinite
  float maximum;                  // -inf if no logit is finite
};

struct LogSoftmaxStats {
  const float* logits;  // [rows, vocabulary], rows row_stride floats apart
  std::int64_t rows;
  std::int64_t vocabulary;
  std::int64_t row_stride;
  const std::int64_t* targets;  // [rows]; a negative one means none. nullptr: none at all
  LogitStats* out;              // [rows]
};

// Throws std::invalid_argument if a target is >= vocabulary.
void log_softmax_stats(const LogSoftmaxStats& call, const Variant& variant = active_variant());

struct RowDivergence {
  double kl;         // KL(teacher || student) in nats; NaN if a logit of either is not finite
  bool same_argmax;  // of teacher and student, each the lowest index on ties
};

struct Divergence {
  const float* teacher;  // [rows, vocabulary], rows teacher_stride floats apart
  const float* student;  // [rows, vocabulary], rows student_stride floats apart
  std::int64_t rows;
  std::int64_t vocabulary;
  std::int64_t teacher_stride;
  std::int64_t student_stride;
  const LogitStats* teacher_stats;  // [rows], from log_softmax_stats
  const LogitStats* student_stats;  // [rows]
  RowDivergence* out;               // [rows]
};

// Differences and sums are double, in fixed order; the error of kl is that of the two log-sum-exps.
void divergence(const Divergence& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
