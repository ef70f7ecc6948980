// The kernels' gradients against finite differences of the same functions in double.
#include "compress/kernels/attention_weights/attention_weights.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

class GradientOf : public EachVariant {};
ATTAR_EACH_VARIANT(GradientOf);

constexpr double kStep = 1e-5;

TEST_P(GradientOf, TheNorm) {
  constexpr double kEps = 1e-3;
  for (const std::int64_t C : {1, 3, 16, 33, 100}) {
    constexpr std::int64_t kRows = 130;  // three parts
    const auto x = normal(kRows * C, 1, 2.0f), weight = normal(C, 2), g = normal(kRows * C, 3);
    Array<float> dx(kRows * C), parts(3 * C);
    rms_norm_gradient({x.data(), weight.data(), g.data(), dx.data(), parts.data(), kRows, C,
                       static_cast<float>(kEps)},
                      variant());
    Array<double> dw(C);
    for (std::int64_t c = 0; c < C; ++c) dw[c] = 0;
    for (std::int64_t r = 0; r < kRows; ++r) {
      const auto loss_at = [&](std::int64_t moved, double step) {
        double squares = 0, loss = 0;
        const auto value = [&](std::int64_t c) { return x[r * C + c] + (c == moved ? step : 0); };
        for (std::int64_t c = 0; c < C; ++c) squares += std::pow(value(c), 2.0);
        const double inverse = 1 / std::sqrt(squares / static_cast<double>(C) + kEps);
        for (std::int64_t c = 0; c < C; ++c) loss += value(c) * inverse * weight[c] * g[r * C + c];
        return loss;
      };
      double squares = 0;
      for (std::int64_t c = 0; c < C; ++c) squares += std::pow(x[r * C + c], 2.0);
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(C) + kEps);
      for (std::int64_t c = 0; c < C; ++c) {
        dw[c] += x[r * C + c] * inverse * g[r * C + c];
        if (r % 17 != 0) continue;
        const double slope = (loss_at(c, kStep) - loss_at(c, -kStep)) / (2 * kStep);
        ASSERT_NEAR(dx[r * C + c], slope, 2e-5 * (1 + std::abs(slope)))
            << C << " " << r << " " << c;
      }
    }
    for (std::int64_t c = 0; c < C; ++c) {
      ASSERT_NEAR(parts[c] + parts[C + c] + parts[2 * C + c], dw[c], 1e-4) << C << " " << c;
    }
    ASSERT_TRUE(dx.guards_hold() && parts.guards_hold());
  }
}

double activate(double x, Activation kind) {
  switch (kind) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::relu:
      return std::max(0.0, x);
  }
  return 0;
}

TEST_P(GradientOf, TheGatedActivation) {
  for (const Activation kind :
       {Activation::silu, Activation::gelu_tanh, Activation::gelu_erf, Activation::relu}) {
    for (const std::int64_t C : {1, 7, 16, 37}) {
      const auto gate = normal(3 * C, 1, 3.0f), up = normal(3 * C, 2), g = normal(3 * C, 3);
      Array<float> dgate(3 * C), dup(3 * C);
      gated_activation_gradient(
          {gate.data(), up.data(), g.data(), dgate.data(), dup.data(), 3, C, kind}, variant());
      for (std::int64_t i = 0; i < 3 * C; ++i) {
        const double slope =
            (activate(gate[i] + kStep, kind) - activate(gate[i] - kStep, kind)) / (2 * kStep);
        ASSERT_NEAR(dgate[i], slope * up[i] * g[i], 3e-6 * (1 + std::abs(up[i] * g[i]))) << gate[i];
        ASSERT_NEAR(dup[i], activate(gate[i], kind) * g[i], 3e-6 * (1 + std::abs(g[i] * gate[i])));
      }
      ASSERT_TRUE(dgate.guards_hold() && dup.guards_hold());
    }
  }
}

// loss = sum over keys of weight * d, weight = softmax(scale * score) over the keys seen.
TEST_P(GradientOf, TheAttentionWeights) {
  constexpr double kScale = 0.3;
  for (const std::int64_t first : {1, 2, 16, 31}) {
    constexpr std::int64_t kRows = 5;
    const std::int64_t columns = first + kRows - 1;
    auto scores = normal(kRows * columns, 1, 4.0f), gradients = normal(kRows * columns, 2);
    const auto before = scores, d = gradients;
    attention_weights({scores.data(), gradients.data(), kRows, columns, columns, first,
                       static_cast<float>(kScale)},
                      variant());
    for (std::int64_t r = 0; r < kRows; ++r) {
      const std::int64_t seen = first + r;
      const auto weights_at = [&](std::int64_t moved, double step) {
        std::vector<double> weights;
        double sum = 0;
        for (std::int64_t c = 0; c < seen; ++c) {
          const double score = before[r * columns + c] + (c == moved ? step : 0);
          weights.push_back(std::exp(kScale * score));
          sum += weights.back();
        }
        for (double& weight : weights) weight /= sum;
        return weights;
      };
      const auto loss_at = [&](std::int64_t moved, double step) {
        const auto weights = weights_at(moved, step);
        double loss = 0;
        for (std::int64_t c = 0; c < seen; ++c) {
          loss += weights[static_cast<std::size_t>(c)] * d[r * columns + c];
        }
        return loss;
      };
      const auto weights = weights_at(-1, 0);
      for (std::int64_t c = 0; c < columns; ++c) {
        const bool sees = c < seen;
        const double weight = sees ? weights[static_cast<std::size_t>(c)] : 0;
        const double slope = sees ? (loss_at(c, kStep) - loss_at(c, -kStep)) / (2 * kStep) : 0;
        ASSERT_NEAR(scores[r * columns + c], weight, 1e-6) << first << " " << r << " " << c;
        ASSERT_NEAR(gradients[r * columns + c], slope, 1e-6) << first << " " << r << " " << c;
      }
    }
    ASSERT_TRUE(scores.guards_hold() && gradients.guards_hold());
  }
}

}  // namespace
}  // namespace attar::kernels
