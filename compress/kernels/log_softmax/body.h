// Row statistics of logits, once for every instruction set S.
#pragma once

#include "compress/kernels/log_softmax/log_softmax.h"
#include "compress/kernels/simd/math.h"

namespace attar::kernels {

// The finite logits; -inf for the others and past the end.
template <class S>
ATTAR_INLINE typename S::Floats finite_logits(const float* x, std::int64_t left,
                                              unsigned* non_finite) {
  const float infinity = __builtin_inff();
  const auto value = left >= S::kWidth ? S::load(x) : S::load_first(x, left, 0.0f);
  const auto finite = S::less(S::abs(value), S::broadcast(infinity));
  *non_finite = static_cast<unsigned>(S::kWidth - __builtin_popcount(S::bits(finite)));
  const auto kept = S::select(finite, value, S::broadcast(-infinity));
  return left >= S::kWidth ? kept : S::keep_first(kept, left, -infinity);
}

// The lowest index whose logit equals `maximum`.
template <class S>
ATTAR_INLINE std::int64_t first_index_of(const float* x, std::int64_t count, float maximum) {
  constexpr int W = S::kWidth;
  for (std::int64_t c = 0; c < count; c += W) {
    const auto value =
        count - c >= W ? S::load(x + c) : S::load_first(x + c, count - c, __builtin_nanf(""));
    const unsigned hits = S::bits(S::equal(value, S::broadcast(maximum)));
    if (hits != 0) return c + __builtin_ctz(hits);
  }
  return -1;
}

// the sum of e^x: fp32 exponentials of x - maximum, added in pairs of pairs of vectors, those
// sums in double.
template <class S>
ATTAR_INLINE double sum_of_exponentials(const float* x, std::int64_t count, float maximum) {
  constexpr int W = S::kWidth;
  const auto top = S::broadcast(maximum);
  auto total = S::spread(0.0);
  for (std::int64_t c = 0; c < count; c += 4 * W) {
    typename S::Floats part[4];
    for (int i = 0; i < 4; ++i) {
      const std::int64_t at = c + i * W;
      unsigned unused;
      part[i] = at < count ? finite_logits<S>(x + at, count - at, &unused)
                           : S::broadcast(-__builtin_inff());
      part[i] = exponential<S>(S::sub(part[i], top));
    }
    const auto sum = S::add(S::add(part[0], part[1]), S::add(part[2], part[3]));
    total = S::add(total, S::widen(sum));
  }
  return S::sum(total);
}

template <class S>
void log_softmax_stats_rows(const LogSoftmaxStats& call, std::int64_t begin, std::int64_t end) {
  constexpr int W = S::kWidth;
  for (std::int64_t r = begin; r < end; ++r) {
    const float* x = call.logits + r * call.row_stride;
    LogitStats& stats = call.out[r];
    auto top = S::broadcast(-__builtin_inff());
    stats.non_finite = 0;
    for (std::int64_t c = 0; c < call.vocabulary; c += W) {
      unsigned non_finite;
      top = S::max(top, finite_logits<S>(x + c, call.vocabulary - c, &non_finite));
      stats.non_finite += non_finite;
    }
    stats.maximum = S::largest(top);
    stats.argmax = -1;
    stats.log_sum_exp = -__builtin_inf();
    if (stats.maximum > -__builtin_inff()) {
      stats.argmax = first_index_of<S>(x, call.vocabulary, stats.maximum);
      const double sum = sum_of_exponentials<S>(x, call.vocabulary, stats.maximum);
      stats.log_sum_exp = static_cast<double>(stats.maximum) + __builtin_log(sum);
    }
    const std::int64_t target = call.targets ? call.targets[r] : -1;
    stats.target_log_probability =
        target < 0 ? __builtin_nan("") : static_cast<double>(x[target]) - stats.log_sum_exp;
  }
}

template <class S>
ATTAR_INLINE typename S::Doubles divergence_terms(typename S::Floats t, typename S::Floats s,
                                                  typename S::Floats maximum,
                                                  typename S::Floats log_sum,
                                                  typename S::Doubles difference) {
  const auto probability = exponential<S>(S::sub(S::sub(t, maximum), log_sum));
  const auto log_ratio = S::sub(S::sub(S::widen(t), S::widen(s)), difference);
  return S::mul(S::widen(probability), log_ratio);
}

// Sum over the vocabulary of p (ln p - ln q); ln p - ln q in double, p in fp32.
template <class S>
ATTAR_INLINE double row_divergence(const float* teacher, const float* student, std::int64_t count,
                                   const LogitStats& t, const LogitStats& s) {
  constexpr int W = S::kWidth;
  const auto maximum = S::broadcast(t.maximum);
  const auto log_sum =
      S::broadcast(static_cast<float>(t.log_sum_exp - static_cast<double>(t.maximum)));
  const auto difference = S::spread(t.log_sum_exp - s.log_sum_exp);
  auto total = S::spread(0.0);
  std::int64_t c = 0;
  for (; c + W <= count; c += W) {
    total = S::add(total, divergence_terms<S>(S::load(teacher + c), S::load(student + c), maximum,
                                              log_sum, difference));
  }
  if (c < count) {  // beyond the end: probability 0 of a finite ratio
    total = S::add(total, divergence_terms<S>(S::load_first(teacher + c, count - c, -3e38f),
                                              S::load_first(student + c, count - c, 0.0f), maximum,
                                              log_sum, difference));
  }
  return S::sum(total);
}

template <class S>
void divergence_rows(const Divergence& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const LogitStats& t = call.teacher_stats[r];
    const LogitStats& s = call.student_stats[r];
    call.out[r].same_argmax = t.argmax == s.argmax;
    const bool finite = t.non_finite == 0 && s.non_finite == 0;
    call.out[r].kl =
        finite ? row_divergence<S>(call.teacher + r * call.teacher_stride,
                                   call.student + r * call.student_stride, call.vocabulary, t, s)
               : __builtin_nan("");
  }
}

}  // namespace attar::kernels
