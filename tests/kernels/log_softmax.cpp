#include "compress/kernels/log_softmax/log_softmax.h"

#include <algorithm>
#include <stdexcept>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double exact_log_sum_exp(const float* x, std::int64_t count) {
  long double sum = 0;
  const double top = *std::max_element(x, x + count);
  for (std::int64_t i = 0; i < count; ++i) sum += std::exp(static_cast<long double>(x[i] - top));
  return top + static_cast<double>(std::log(sum));
}

LogitStats stats_of(const float* x, std::int64_t count, const Variant& variant,
                    std::int64_t target = -1) {
  LogitStats out;
  log_softmax_stats({x, 1, count, count, &target, &out}, variant);
  return out;
}

class LogSoftmaxOf : public EachVariant {};
ATTAR_EACH_VARIANT(LogSoftmaxOf);

TEST_P(LogSoftmaxOf, AgreesWithLongDoubleForEveryLength) {
  for (std::int64_t count = 1; count <= 8 * kWidest + 3; ++count) {
    const auto x = normal(count, static_cast<unsigned>(count), 5.0f, static_cast<int>(count % 3));
    const LogitStats got = stats_of(x.data(), count, variant(), count / 2);
    const double expected = exact_log_sum_exp(x.data(), count);
    const auto top = std::max_element(x.data(), x.data() + count);
    EXPECT_NEAR(got.log_sum_exp, expected, 1e-6);
    EXPECT_NEAR(got.target_log_probability, x[count / 2] - expected, 1e-6);
    EXPECT_EQ(got.maximum, *top);
    EXPECT_EQ(got.argmax, top - x.data());
    EXPECT_EQ(got.non_finite, 0);
  }
}

// Flat rows are the worst for the differences from the maximum, peaked and huge ones for range.
TEST_P(LogSoftmaxOf, KeepsTheBoundOverAWholeVocabulary) {
  for (const float spread : {0.0f, 0.01f, 1.0f, 3.0f, 10.0f, 1000.0f, 1e30f}) {
    auto x = normal(49152, 7, spread);
    for (std::int64_t i = 0; i < x.size(); ++i) x[i] += 17.3f;
    const double expected = exact_log_sum_exp(x.data(), x.size());
    const double got = stats_of(x.data(), x.size(), variant()).log_sum_exp;
    EXPECT_NEAR(got, expected, 1e-6 + 1e-15 * std::abs(expected)) << "spread " << spread;
  }
}

TEST_P(LogSoftmaxOf, TheLowestIndexWinsATieWhereverItStands) {
  for (std::int64_t first = 0; first < 70; ++first) {
    Array<float> x(70);
    for (std::int64_t i = 0; i < 70; ++i) x[i] = i < first ? -1.0f : 2.0f;
    EXPECT_EQ(stats_of(x.data(), 70, variant()).argmax, first);
  }
}

TEST_P(LogSoftmaxOf, NonFiniteLogitsAreCountedAndLeftOut) {
  const float x[] = {1, kInfinity, kNan, 3, -kInfinity, 3};
  const LogitStats got = stats_of(x, 6, variant(), 0);
  EXPECT_EQ(got.non_finite, 3);
  EXPECT_EQ(got.maximum, 3);
  EXPECT_EQ(got.argmax, 3);
  EXPECT_NEAR(got.log_sum_exp, std::log(2 * std::exp(3.0) + std::exp(1.0)), 1e-6);
  auto spotted = normal(200, 4);
  for (std::int64_t i = 0; i < 200; i += 10) spotted[i] = kNan;
  EXPECT_EQ(stats_of(spotted.data(), 200, variant()).non_finite, 20);
  const float none[] = {kNan, -kInfinity, kInfinity};
  const LogitStats empty = stats_of(none, 3, variant());
  EXPECT_EQ(empty.argmax, -1);
  EXPECT_EQ(empty.non_finite, 3);
  EXPECT_EQ(empty.maximum, -kInfinity);
  EXPECT_EQ(empty.log_sum_exp, -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(empty.target_log_probability));
}

TEST_P(LogSoftmaxOf, BitsDoNotDependOnThreadsOrOnOtherRows) {
  constexpr std::int64_t kRows = 40, kCount = 5003, kStride = 5010;
  const auto x = normal(kRows * kStride, 3, 4.0f);
  std::vector<LogitStats> one(kRows), two(kRows);
  with_threads(1, [&] {
    log_softmax_stats({x.data(), kRows, kCount, kStride, nullptr, one.data()}, variant());
  });
  with_threads(2, [&] {
    log_softmax_stats({x.data(), kRows, kCount, kStride, nullptr, two.data()}, variant());
  });
  for (std::int64_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(one[r].log_sum_exp, two[r].log_sum_exp);
    EXPECT_EQ(one[r].log_sum_exp, stats_of(x.data() + r * kStride, kCount, variant()).log_sum_exp);
  }
}

RowDivergence divergence_of(const float* t, const float* s, std::int64_t count,
                            const Variant& variant) {
  const LogitStats teacher = stats_of(t, count, variant), student = stats_of(s, count, variant);
  RowDivergence out;
  divergence({t, s, 1, count, count, count, &teacher, &student, &out}, variant);
  return out;
}

// Besides the 1e-6 of each log-sum-exp, fp32 probabilities cost some 2e-6 of the mean |log ratio|.
TEST_P(LogSoftmaxOf, DivergenceAgreesWithLongDoubleForEveryLength) {
  for (std::int64_t count = 1; count <= 8 * kWidest + 3; ++count) {
    const auto t = normal(count, 1, 4.0f), s = normal(count, 2, 4.0f, 2);
    const double a = exact_log_sum_exp(t.data(), count), b = exact_log_sum_exp(s.data(), count);
    double expected = 0, magnitude = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double term = std::exp(t[i] - a) * ((t[i] - a) - (s[i] - b));
      expected += term;
      magnitude += std::abs(term);
    }
    const RowDivergence got = divergence_of(t.data(), s.data(), count, variant());
    EXPECT_NEAR(got.kl, expected, 2e-6 + 2e-6 * magnitude) << "count " << count;
    const auto top = [count](const float* x) { return std::max_element(x, x + count) - x; };
    EXPECT_EQ(got.same_argmax, top(t.data()) == top(s.data()));
  }
}

// (1/2, 1/2) against (3/4, 1/4): ln 2 - ln 3 / 2. Against itself: 0.
TEST_P(LogSoftmaxOf, DivergenceMatchesAHandWorkedPair) {
  const float even[] = {0, 0}, odd[] = {1.09861229f, 0};
  const RowDivergence got = divergence_of(even, odd, 2, variant());
  EXPECT_NEAR(got.kl, 0.143841036, 3e-7);
  EXPECT_TRUE(got.same_argmax);
  EXPECT_EQ(divergence_of(odd, odd, 2, variant()).kl, 0);
}

// A student moved by 1e-3 a logit: kl is about half the variance of the shift, 5e-7.
TEST_P(LogSoftmaxOf, SmallDivergencesSurvive) {
  constexpr std::int64_t kCount = 49152;
  const auto t = normal(kCount, 1, 3.0f), noise = normal(kCount, 2, 1e-3f);
  auto s = t;
  for (std::int64_t i = 0; i < kCount; ++i) s[i] += noise[i];
  const double a = exact_log_sum_exp(t.data(), kCount), b = exact_log_sum_exp(s.data(), kCount);
  double expected = 0;
  for (std::int64_t i = 0; i < kCount; ++i) {
    expected += std::exp(t[i] - a) * ((t[i] - a) - (s[i] - b));
  }
  EXPECT_NEAR(divergence_of(t.data(), s.data(), kCount, variant()).kl, expected, 1e-8);
}

TEST_P(LogSoftmaxOf, DivergenceOfANonFiniteRowIsNan) {
  const float good[] = {1, 2, 3}, bad[] = {1, kNan, 3}, endless[] = {1, -kInfinity, 3};
  EXPECT_TRUE(std::isnan(divergence_of(good, bad, 3, variant()).kl));
  EXPECT_TRUE(std::isnan(divergence_of(endless, good, 3, variant()).kl));
}

TEST(LogSoftmax, RefusesATargetBeyondTheVocabulary) {
  const float x[] = {1, 2};
  EXPECT_THROW(stats_of(x, 2, active_variant(), 2), std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
