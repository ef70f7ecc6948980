// Losses on the distribution over the vocabulary, with their gradient in the logits: one walk of a
// row gives both, and the gradient takes the place of the logits.
//
// Notation: p the teacher's distribution, q the student's, both softmax(logits / temperature).
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

enum class ResponseKind : std::uint8_t {
  cross_entropy,    // -log q[target]
  forward_kl,       // KL(p || q)                                  Hinton et al. 2015, 1503.02531
  reverse_kl,       // KL(q || p)
  jensen_shannon,   // m = mix p + (1 - mix) q: mix KL(p || m) + (1 - mix) KL(q || m)
                    //                                             Agarwal et al. 2024, 2306.13649
  skew_forward,     // KL(p || mix p + (1 - mix) q)                Ko et al. 2024, 2402.03898
  skew_reverse,     // KL(q || mix q + (1 - mix) p)
  total_variation,  // sum |p - q| / 2
  taid,             // -sum t log q, t = softmax(((1 - mix) student + mix teacher) / temperature),
                    // t held fixed                                Shing et al. 2025, 2501.16937
  sparse_kl,        // KL(p || q) with p known on a few ids, the rest as one bucket
};

// weight * temperature^2 * loss is what is added up and differentiated.
struct ResponseTerm {
  ResponseKind kind = ResponseKind::cross_entropy;
  double weight = 1;
  double temperature = 1;  // > 0
  double mix = 0;          // where the kind has one; in (0, 1), taid in [0, 1]
};

// What is known of the teacher for sparse_kl (temperature 1). With a tail, what the listed
// probabilities leave of 1 is compared as one bucket with what q leaves of 1; without, only the
// listed ids count.
struct SparseTeacher {
  const std::int32_t* ids;     // [rows, count]; distinct in a row; negative: unused
  const float* probabilities;  // [rows, count]
  std::int64_t count = 0;
  bool tail = true;
};

struct ResponseLoss {
  float* student;        // [rows, vocabulary]: logits in, scale * gradient of the sum out
  const float* teacher;  // [rows, vocabulary] logits, or nullptr when no term asks for them
  std::int64_t rows;
  std::int64_t vocabulary;
  std::int64_t student_stride;
  std::int64_t teacher_stride;
  const std::int64_t* targets;  // [rows]; negative: the row does not count (loss and gradient 0)
  const ResponseTerm* terms;    // [term_count]
  std::int64_t term_count;
  double scale;    // of the gradient: one over the tokens of the batch
  double* losses;  // [rows, term_count]: temperature^2 * loss, without weight and scale
  SparseTeacher sparse = {};
};

// Logits and probabilities fp32, sums double. A NaN or +inf among the logits makes the row's
// losses NaN. Throws std::invalid_argument if a target or an id is >= vocabulary.
void response_loss(const ResponseLoss& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
