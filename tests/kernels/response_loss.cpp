#include "compress/kernels/response_loss/response_loss.h"

#include <functional>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

class ResponseLossOf : public EachVariant {};
ATTAR_EACH_VARIANT(ResponseLossOf);

using Row = std::vector<double>;

Row log_softmax(const Row& z, double temperature) {
  double top = z[0], sum = 0;
  for (const double x : z) top = std::max(top, x);
  for (const double x : z) sum += std::exp((x - top) / temperature);
  Row out;
  for (const double x : z) out.push_back((x - top) / temperature - std::log(sum));
  return out;
}

struct Sparse {
  std::vector<std::int32_t> ids;
  std::vector<float> probabilities;
  bool tail = true;
};

// KL(a || mix a + (1 - mix) b).
double skew(const Row& la, const Row& lb, double mix) {
  double sum = 0;
  for (std::size_t i = 0; i < la.size(); ++i) {
    const double a = std::exp(la[i]), m = mix * a + (1 - mix) * std::exp(lb[i]);
    sum += a * (la[i] - std::log(m));
  }
  return sum;
}

// A term as its paper defines it, in double; `held` are the student logits that TAID holds fixed.
double slow_loss(const ResponseTerm& term, const Row& student, const Row& teacher, const Row& held,
                 std::size_t target, const Sparse& sparse) {
  const double T = term.temperature;
  const Row q = log_softmax(student, T), p = log_softmax(teacher, T);
  double sum = 0;
  switch (term.kind) {
    case ResponseKind::cross_entropy:
      return T * T * -q[target];
    case ResponseKind::forward_kl:
      return T * T * skew(p, q, 0);
    case ResponseKind::reverse_kl:
      return T * T * skew(q, p, 0);
    case ResponseKind::jensen_shannon:
      return T * T * (term.mix * skew(p, q, term.mix) + (1 - term.mix) * skew(q, p, 1 - term.mix));
    case ResponseKind::skew_forward:
      return T * T * skew(p, q, term.mix);
    case ResponseKind::skew_reverse:
      return T * T * skew(q, p, term.mix);
    case ResponseKind::total_variation:
      for (std::size_t i = 0; i < q.size(); ++i) sum += std::abs(std::exp(p[i]) - std::exp(q[i]));
      return T * T * sum / 2;
    case ResponseKind::taid: {
      Row mixed;
      for (std::size_t i = 0; i < q.size(); ++i) {
        mixed.push_back((1 - term.mix) * held[i] + term.mix * teacher[i]);
      }
      const Row t = log_softmax(mixed, T);
      for (std::size_t i = 0; i < q.size(); ++i) sum -= std::exp(t[i]) * q[i];
      return T * T * sum;
    }
    case ResponseKind::sparse_kl: {
      double known_p = 0, known_q = 0;
      for (std::size_t i = 0; i < sparse.ids.size(); ++i) {
        if (sparse.ids[i] < 0) continue;
        const double probability = sparse.probabilities[i];
        const double lq = q[static_cast<std::size_t>(sparse.ids[i])];
        sum += probability * (std::log(probability) - lq);
        known_p += probability, known_q += std::exp(lq);
      }
      if (sparse.tail) sum += (1 - known_p) * std::log((1 - known_p) / (1 - known_q));
      return sum;
    }
  }
  return 0;
}

struct Case {
  ResponseTerm term;
  const char* name;
};
const Case kCases[] = {
    {{ResponseKind::cross_entropy, 1, 1, 0}, "cross entropy"},
    {{ResponseKind::forward_kl, 1, 1, 0}, "forward KL"},
    {{ResponseKind::forward_kl, 1, 2.5, 0}, "forward KL at 2.5"},
    {{ResponseKind::reverse_kl, 1, 1, 0}, "reverse KL"},
    {{ResponseKind::jensen_shannon, 1, 1, 0.5}, "JS 0.5"},
    {{ResponseKind::jensen_shannon, 1, 2, 0.1}, "JS 0.1 at 2"},
    {{ResponseKind::skew_forward, 1, 1, 0.1}, "skew forward"},
    {{ResponseKind::skew_reverse, 1, 1, 0.1}, "skew reverse"},
    {{ResponseKind::total_variation, 1, 1, 0}, "total variation"},
    {{ResponseKind::taid, 1, 1, 0.4}, "TAID"},
    {{ResponseKind::sparse_kl, 1, 1, 0}, "sparse"},
};

Row row_of(const Array<float>& values, std::int64_t row, std::int64_t count) {
  return {values.data() + row * count, values.data() + (row + 1) * count};
}

// The loss, and its gradient by central differences of the loss in double.
TEST_P(ResponseLossOf, AgreesWithDoubleArithmeticAndFiniteDifferences) {
  for (const std::int64_t V : {4, 15, 16, 17, 33, 70}) {
    for (const Case& each : kCases) {
      for (const bool tail : {true, false}) {
        constexpr std::int64_t kRows = 2;
        auto logits = normal(kRows * V, 1, 2.0f);
        const auto student = logits, teacher = normal(kRows * V, 2, 2.0f);
        const std::int64_t targets[kRows] = {1, V - 1};
        const Sparse sparse{{2, -1, 0}, {0.5f, 0.9f, 0.2f}, tail};
        const std::int32_t ids[] = {2, -1, 0, 2, -1, 0};
        const float listed[] = {0.5f, 0.9f, 0.2f, 0.5f, 0.9f, 0.2f};
        double losses[kRows];
        response_loss({logits.data(),
                       teacher.data(),
                       kRows,
                       V,
                       V,
                       V,
                       targets,
                       &each.term,
                       1,
                       0.25,
                       losses,
                       {ids, listed, 3, tail}},
                      variant());
        for (std::int64_t r = 0; r < kRows; ++r) {
          const Row held = row_of(student, r, V), p = row_of(teacher, r, V);
          const auto loss_at = [&](std::int64_t c, double step) {
            Row moved = held;
            moved[static_cast<std::size_t>(c)] += step;
            return slow_loss(each.term, moved, p, held, static_cast<std::size_t>(targets[r]),
                             sparse);
          };
          const double T = each.term.temperature;
          ASSERT_NEAR(losses[r], loss_at(0, 0), 4e-6 * T * T) << each.name << " of " << V;
          for (std::int64_t c = 0; c < V; ++c) {
            const double slope = (loss_at(c, 1e-5) - loss_at(c, -1e-5)) / 2e-5;
            ASSERT_NEAR(logits[r * V + c], 0.25 * slope, 1e-6 * T)
                << each.name << " " << V << " " << c;
          }
        }
        ASSERT_TRUE(logits.guards_hold());
      }
    }
  }
}

TEST_P(ResponseLossOf, TermsAddUpWithTheirWeightsAndARowWithoutTargetIsLeftOut) {
  constexpr std::int64_t V = 37;
  const auto student = normal(2 * V, 1, 2.0f), teacher = normal(2 * V, 2, 2.0f);
  const std::int64_t targets[] = {5, -1};
  const ResponseTerm terms[] = {{ResponseKind::forward_kl, 0.7, 2, 0},
                                {ResponseKind::cross_entropy, 0.3, 1, 0}};
  Array<float> sum(2 * V);
  std::vector<Array<float>> alone;
  double losses[4], one[2];
  for (const ResponseTerm& term : terms) {
    auto logits = student;
    response_loss({logits.data(), teacher.data(), 2, V, V, V, targets, &term, 1, 1, one},
                  variant());
    alone.push_back(logits);
  }
  auto logits = student;
  response_loss({logits.data(), teacher.data(), 2, V, V, V, targets, terms, 2, 1, losses},
                variant());
  EXPECT_EQ(losses[1], one[0]);
  EXPECT_EQ(losses[2] + losses[3], 0);
  for (std::int64_t c = 0; c < V; ++c) {
    EXPECT_NEAR(logits[c], alone[0][c] + alone[1][c], 1e-6);
    EXPECT_EQ(logits[V + c], 0);
  }
}

// Equal up to a constant: no loss and no gradient.
TEST_P(ResponseLossOf, IsZeroWhereStudentAndTeacherAgree) {
  constexpr std::int64_t V = 50;
  const auto teacher = normal(V, 2, 2.0f);
  const std::int64_t target = 0;
  for (const Case& each : kCases) {
    if (each.term.kind == ResponseKind::cross_entropy ||
        each.term.kind == ResponseKind::sparse_kl) {
      continue;
    }
    auto logits = teacher;
    for (std::int64_t c = 0; c < V; ++c) logits[c] += 3;
    double loss;
    response_loss({logits.data(), teacher.data(), 1, V, V, V, &target, &each.term, 1, 1, &loss},
                  variant());
    if (each.term.kind != ResponseKind::taid) {
      EXPECT_NEAR(loss, 0, 2e-6) << each.name;
    }
    if (each.term.kind == ResponseKind::total_variation) continue;  // not differentiable there
    for (std::int64_t c = 0; c < V; ++c) EXPECT_NEAR(logits[c], 0, 1e-6) << each.name;
  }
}

// At a high temperature T^2 KL tends to the squared distance of the centred logits over 2 V.
TEST_P(ResponseLossOf, KeepsTheSizeOfItsGradientAtAnyTemperature) {
  constexpr std::int64_t V = 64;
  const auto student = normal(V, 1), teacher = normal(V, 2);
  const std::int64_t target = 0;
  const auto norm_at = [&](double temperature) {
    auto logits = student;
    double loss;
    const ResponseTerm term{ResponseKind::forward_kl, 1, temperature, 0};
    response_loss({logits.data(), teacher.data(), 1, V, V, V, &target, &term, 1, 1, &loss},
                  variant());
    double sum = 0;
    for (std::int64_t c = 0; c < V; ++c) sum += std::pow(logits[c], 2.0);
    return std::sqrt(sum);
  };
  EXPECT_NEAR(norm_at(40) / norm_at(20), 1, 0.02);
}

TEST_P(ResponseLossOf, ANonFiniteLogitShowsAndAnIdBeyondTheVocabularyIsRefused) {
  const std::int64_t target = 0, beyond = 4;
  const ResponseTerm term{ResponseKind::forward_kl};
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    float logits[] = {0, bad, 1, 2}, teacher[] = {0, 1, 2, 3};
    double loss;
    response_loss({logits, teacher, 1, 4, 4, 4, &target, &term, 1, 1, &loss}, variant());
    EXPECT_FALSE(std::isfinite(loss));
    EXPECT_THROW(
        response_loss({logits, teacher, 1, 4, 4, 4, &beyond, &term, 1, 1, &loss}, variant()),
        std::invalid_argument);
  }
}

}  // namespace
}  // namespace attar::kernels
