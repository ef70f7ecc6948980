// The losses, once for every instruction set S.
//
// Every loss is a function of q alone (p held fixed). With h = q * dL/dq its gradient in the logits
// divided by the temperature is h - q sum(h); the kinds differ in their value and in h.
#pragma once

#include "compress/kernels/response_loss/response_loss.h"
#include "compress/kernels/simd/math.h"

namespace attar::kernels {

inline constexpr float kNoLogit = -1e30f;  // past the end: probability 0, differences finite

// log softmax(x / T) = x * inverse - shift.
template <class S>
struct LogSoftmaxRow {
  const float* x;
  typename S::Floats inverse, largest, log_sum;

  ATTAR_INLINE LogSoftmaxRow of(const float* x, std::int64_t count, double temperature) {
    constexpr int W = S::kWidth;
    const auto load = [&](std::int64_t c) {
      return count - c >= W ? S::load(x + c) : S::load_first(x + c, count - c, kNoLogit);
    };
    auto top = S::broadcast(-__builtin_inff());
    for (std::int64_t c = 0; c < count; c += W) top = S::max(top, load(c));
    LogSoftmaxRow row;
    row.x = x;
    row.largest = S::broadcast(S::largest(top));
    row.inverse = S::broadcast(static_cast<float>(1.0 / temperature));
    auto total = S::spread(0.0);
    for (std::int64_t c = 0; c < count; c += W) {
      total = S::add(total,
                     S::widen(exponential<S>(S::mul(S::sub(load(c), row.largest), row.inverse))));
    }
    row.log_sum = S::broadcast(static_cast<float>(__builtin_log(S::sum(total))));
    return row;
  }
  ATTAR_INLINE typename S::Floats log_at(const LogSoftmaxRow& row, std::int64_t c,
                                         std::int64_t count) {
    constexpr int W = S::kWidth;
    const auto x =
        count - c >= W ? S::load(row.x + c) : S::load_first(row.x + c, count - c, kNoLogit);
    return S::sub(S::mul(S::sub(x, row.largest), row.inverse), row.log_sum);
  }
};

// log(e^a + e^b).
template <class S>
ATTAR_INLINE typename S::Floats log_add(typename S::Floats a, typename S::Floats b) {
  const auto high = S::max(a, b), low = S::min(a, b);
  return S::add(high, log_one_plus<S>(exponential<S>(S::sub(low, high))));
}

template <class S>
struct LossAndSlope {
  typename S::Floats loss, h;
};

// lp, lq: log p, log q. a, b: log mix, log(1 - mix), and the factors themselves.
template <class S, ResponseKind kind>
ATTAR_INLINE LossAndSlope<S> loss_and_slope(typename S::Floats lp, typename S::Floats lq, float mix,
                                            float rest, float log_mix, float log_rest) {
  const auto p = exponential<S>(lp), q = exponential<S>(lq);
  const auto zero = S::broadcast(0.0f), one = S::broadcast(1.0f);
  if constexpr (kind == ResponseKind::forward_kl) {
    return {S::mul(p, S::sub(lp, lq)), S::sub(zero, p)};
  } else if constexpr (kind == ResponseKind::taid) {
    return {S::sub(zero, S::mul(p, lq)), S::sub(zero, p)};
  } else if constexpr (kind == ResponseKind::reverse_kl) {
    const auto ratio = S::sub(lq, lp);
    return {S::mul(q, ratio), S::mul(q, S::add(ratio, one))};
  } else if constexpr (kind == ResponseKind::jensen_shannon) {
    const auto m =
        log_add<S>(S::add(lp, S::broadcast(log_mix)), S::add(lq, S::broadcast(log_rest)));
    const auto from_q = S::mul(S::mul(S::broadcast(rest), q), S::sub(lq, m));
    const auto from_p = S::mul(S::mul(S::broadcast(mix), p), S::sub(lp, m));
    return {S::add(from_p, from_q), from_q};
  } else if constexpr (kind == ResponseKind::skew_forward) {
    const auto m =
        log_add<S>(S::add(lp, S::broadcast(log_mix)), S::add(lq, S::broadcast(log_rest)));
    const auto share = exponential<S>(S::sub(S::add(lp, lq), m));
    return {S::mul(p, S::sub(lp, m)), S::mul(S::broadcast(-rest), share)};
  } else if constexpr (kind == ResponseKind::skew_reverse) {
    const auto m =
        log_add<S>(S::add(lq, S::broadcast(log_mix)), S::add(lp, S::broadcast(log_rest)));
    const auto ratio = S::sub(lq, m);
    const auto own = S::mul(S::broadcast(-mix), exponential<S>(S::add(lq, ratio)));
    return {S::mul(q, ratio), S::mul_add(q, S::add(ratio, one), own)};
  } else {
    const auto half = S::broadcast(0.5f);
    const auto sign =
        S::select(S::less(p, q), half, S::select(S::less(q, p), S::broadcast(-0.5f), zero));
    return {S::mul(half, S::abs(S::sub(p, q))), S::mul(q, sign)};
  }
}

template <class S>
ATTAR_INLINE void store_part(float* to, typename S::Floats x, std::int64_t left) {
  if (left >= S::kWidth) {
    S::store(to, x);
  } else {
    S::store_first(to, x, left);
  }
}

// sum[c] += factor * (h[c] - q[c] total); h == nullptr stands for zeros.
template <class S>
ATTAR_INLINE void add_gradient(const LogSoftmaxRow<S>& student, const float* h, double total,
                               double factor, std::int64_t count, float* sum) {
  constexpr int W = S::kWidth;
  const auto minus_total = S::broadcast(static_cast<float>(-total));
  const auto scale = S::broadcast(static_cast<float>(factor));
  for (std::int64_t c = 0; c < count; c += W) {
    const std::int64_t left = count - c;
    const auto q = exponential<S>(LogSoftmaxRow<S>::log_at(student, c, count));
    const auto load = [&](const float* from) {
      return left >= W ? S::load(from + c) : S::load_first(from + c, left, 0.0f);
    };
    const auto slope = S::mul_add(q, minus_total, h ? load(h) : S::broadcast(0.0f));
    store_part<S>(sum + c, S::mul_add(slope, scale, load(sum)), left);
  }
}

// Loss of a dense kind; h goes to scratch, its sum to *total.
template <class S, ResponseKind kind>
double dense_loss(const LogSoftmaxRow<S>& teacher, const LogSoftmaxRow<S>& student, double mix,
                  std::int64_t count, float* h, double* total) {
  constexpr int W = S::kWidth;
  const auto share = static_cast<float>(mix), rest = static_cast<float>(1 - mix);
  const auto log_mix = static_cast<float>(__builtin_log(mix));
  const auto log_rest = static_cast<float>(__builtin_log(1 - mix));
  auto losses = S::spread(0.0), slopes = S::spread(0.0);
  for (std::int64_t c = 0; c < count; c += W) {
    const auto part = loss_and_slope<S, kind>(LogSoftmaxRow<S>::log_at(teacher, c, count),
                                              LogSoftmaxRow<S>::log_at(student, c, count), share,
                                              rest, log_mix, log_rest);
    losses = S::add(losses, S::widen(part.loss));
    slopes = S::add(slopes, S::widen(part.h));
    store_part<S>(h + c, part.h, count - c);
  }
  *total = S::sum(slopes);
  return S::sum(losses);
}

template <class S>
double dense_loss(const ResponseTerm& term, const LogSoftmaxRow<S>& teacher,
                  const LogSoftmaxRow<S>& student, std::int64_t count, float* h, double* total) {
  switch (term.kind) {
    case ResponseKind::reverse_kl:
      return dense_loss<S, ResponseKind::reverse_kl>(teacher, student, 0.5, count, h, total);
    case ResponseKind::jensen_shannon:
      return dense_loss<S, ResponseKind::jensen_shannon>(teacher, student, term.mix, count, h,
                                                         total);
    case ResponseKind::skew_forward:
      return dense_loss<S, ResponseKind::skew_forward>(teacher, student, term.mix, count, h, total);
    case ResponseKind::skew_reverse:
      return dense_loss<S, ResponseKind::skew_reverse>(teacher, student, term.mix, count, h, total);
    case ResponseKind::total_variation:
      return dense_loss<S, ResponseKind::total_variation>(teacher, student, 0.5, count, h, total);
    case ResponseKind::taid:
      return dense_loss<S, ResponseKind::taid>(teacher, student, 0.5, count, h, total);
    default:
      return dense_loss<S, ResponseKind::forward_kl>(teacher, student, 0.5, count, h, total);
  }
}

// (1 - mix) student + mix teacher.
template <class S>
ATTAR_INLINE void mix_logits(const float* student, const float* teacher, double mix,
                             std::int64_t count, float* out) {
  constexpr int W = S::kWidth;
  const auto share = S::broadcast(static_cast<float>(mix));
  const auto rest = S::broadcast(static_cast<float>(1 - mix));
  for (std::int64_t c = 0; c < count; c += W) {
    const std::int64_t left = count - c;
    const auto load = [&](const float* from) {
      return left >= W ? S::load(from + c) : S::load_first(from + c, left, 0.0f);
    };
    store_part<S>(out + c, S::mul_add(load(teacher), share, S::mul(load(student), rest)), left);
  }
}

template <class S>
ATTAR_INLINE double log_probability(const LogSoftmaxRow<S>& row, std::int64_t id) {
  float lanes[3][S::kWidth];
  S::store(lanes[0], row.inverse);
  S::store(lanes[1], row.largest);
  S::store(lanes[2], row.log_sum);
  return (static_cast<double>(row.x[id]) - static_cast<double>(lanes[1][0])) *
             static_cast<double>(lanes[0][0]) -
         static_cast<double>(lanes[2][0]);
}

template <class S>
double cross_entropy(const LogSoftmaxRow<S>& student, std::int64_t target, double factor,
                     std::int64_t count, float* sum) {
  add_gradient<S>(student, nullptr, -1.0, factor, count, sum);
  sum[target] -= static_cast<float>(factor);
  return -log_probability<S>(student, target);
}

template <class S>
double sparse_loss(const LogSoftmaxRow<S>& student, const SparseTeacher& teacher, std::int64_t row,
                   double factor, std::int64_t count, float* sum) {
  const std::int32_t* ids = teacher.ids + row * teacher.count;
  const float* listed = teacher.probabilities + row * teacher.count;
  double known_p = 0, known_q = 0, loss = 0;
  for (std::int64_t i = 0; i < teacher.count; ++i) {
    if (ids[i] < 0) continue;
    const double p = static_cast<double>(listed[i]), lq = log_probability<S>(student, ids[i]);
    known_p += p;
    known_q += __builtin_exp(lq);
    if (p > 0) loss += p * (__builtin_log(p) - lq);
  }
  double ratio = 0;  // of the tails: p's over q's
  const double p_tail = 1 - known_p, q_tail = 1 - known_q > 1e-9 ? 1 - known_q : 1e-9;
  if (teacher.tail && p_tail > 0) {
    loss += p_tail * __builtin_log(p_tail / q_tail);
    ratio = p_tail / q_tail;
  }
  add_gradient<S>(student, nullptr, known_q * ratio - known_p, factor, count, sum);
  for (std::int64_t i = 0; i < teacher.count; ++i) {
    if (ids[i] < 0) continue;
    const double q = __builtin_exp(log_probability<S>(student, ids[i]));
    sum[ids[i]] += static_cast<float>(factor * (q * ratio - static_cast<double>(listed[i])));
  }
  return loss;
}

// scratch: [3, vocabulary].
template <class S>
void response_loss_row(const ResponseLoss& call, std::int64_t row, float* scratch) {
  const std::int64_t count = call.vocabulary;
  float* logits = call.student + row * call.student_stride;
  double* losses = call.losses + row * call.term_count;
  if (call.targets[row] < 0) {
    for (std::int64_t c = 0; c < count; ++c) logits[c] = 0;
    for (std::int64_t i = 0; i < call.term_count; ++i) losses[i] = 0;
    return;
  }
  float* sum = scratch;
  float* h = scratch + count;
  for (std::int64_t c = 0; c < count; ++c) sum[c] = 0;
  for (std::int64_t i = 0; i < call.term_count; ++i) {
    const ResponseTerm& term = call.terms[i];
    const auto student = LogSoftmaxRow<S>::of(logits, count, term.temperature);
    const double factor = call.scale * term.weight * term.temperature;
    double loss = 0;
    if (term.kind == ResponseKind::cross_entropy) {
      loss = cross_entropy<S>(student, call.targets[row], factor, count, sum);
    } else if (term.kind == ResponseKind::sparse_kl) {
      loss = sparse_loss<S>(student, call.sparse, row, factor, count, sum);
    } else {
      const float* teacher = call.teacher + row * call.teacher_stride;
      if (term.kind == ResponseKind::taid) {
        mix_logits<S>(logits, teacher, term.mix, count, scratch + 2 * count);
        teacher = scratch + 2 * count;
      }
      double total = 0;
      loss = dense_loss<S>(term, LogSoftmaxRow<S>::of(teacher, count, term.temperature), student,
                           count, h, &total);
      add_gradient<S>(student, h, total, factor, count, sum);
    }
    losses[i] = term.temperature * term.temperature * loss;
  }
  for (std::int64_t c = 0; c < count; ++c) logits[c] = sum[c];
}

}  // namespace attar::kernels
