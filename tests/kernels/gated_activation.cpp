#include "compress/kernels/gated_activation/gated_activation.h"

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

class GatedActivationOf : public EachVariant {};
ATTAR_EACH_VARIANT(GatedActivationOf);

constexpr Activation kAll[] = {Activation::silu, Activation::gelu_tanh, Activation::gelu_erf,
                               Activation::relu};

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu_tanh: {
      const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
      return x / (1 + std::exp(-2 * u));
    }
    case Activation::gelu_erf:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    default:
      return x > 0 ? x : 0;
  }
}

// What the header promises.
double bound(Activation activation, double x, double value) {
  double units = activation == Activation::silu ? 4 : 8;
  if (activation == Activation::gelu_erf && x < 0) units = 16;
  if (activation == Activation::gelu_tanh && x < 0) {
    units = 8 + 2 * std::sqrt(8 / M_PI) * std::abs(x + 0.044715 * x * x * x);
  }
  return units * 0x1p-23 * std::abs(value) + 1e-36;
}

TEST_P(GatedActivationOf, KeepsItsBoundOverTheWholeRange) {
  constexpr std::int64_t kCount = 200001;
  Array<float> x(kCount), out(kCount);
  for (std::int64_t i = 0; i < kCount; ++i) {
    const double u = static_cast<double>(i - kCount / 2) / (kCount / 2);
    x[i] = static_cast<float>(i % 2 ? 110 * u : 110 * u * u * u * u * u);
  }
  for (const Activation activation : kAll) {
    gated_activation({x.data(), nullptr, out.data(), 1, kCount, kCount, kCount, kCount, activation},
                     variant());
    for (std::int64_t i = 0; i < kCount; ++i) {
      const double expected = exact(activation, x[i]);
      ASSERT_NEAR(out[i], expected, bound(activation, x[i], expected))
          << "activation " << int(activation) << " at x = " << x[i];
    }
  }
}

TEST_P(GatedActivationOf, MultipliesByUpForEveryLengthStrideAndAlias) {
  for (const Activation activation : kAll) {
    for (std::int64_t columns = 1; columns <= 2 * kWidest + 1; ++columns) {
      auto fused = normal(3 * 2 * columns, 1);  // gate and up side by side, as one product makes
      const auto before = fused;
      Array<float> out(3 * columns);
      const GatedActivation call = {fused.data(), fused.data() + columns,
                                    out.data(),   3,
                                    columns,      2 * columns,
                                    2 * columns,  columns,
                                    activation};
      gated_activation(call, variant());
      for (std::int64_t r = 0; r < 3; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) {
          const double gate = before[2 * r * columns + c];
          const double expected = exact(activation, gate) * before[(2 * r + 1) * columns + c];
          ASSERT_NEAR(out[r * columns + c], expected,
                      bound(activation, gate, expected) + kUnit * std::abs(expected));
        }
      }
      GatedActivation in_place = call;
      in_place.out = fused.data();
      in_place.out_stride = 2 * columns;
      gated_activation(in_place, variant());
      for (std::int64_t r = 0; r < 3; ++r) {
        ASSERT_EQ(std::memcmp(fused.data() + 2 * r * columns, out.data() + r * columns,
                              static_cast<std::size_t>(4 * columns)),
                  0);
        ASSERT_EQ(fused[(2 * r + 1) * columns], before[(2 * r + 1) * columns]);
      }
      ASSERT_TRUE(fused.guards_hold() && out.guards_hold());
    }
  }
}

TEST_P(GatedActivationOf, PassesNanAndInfinityOn) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float x[] = {infinity, std::numeric_limits<float>::quiet_NaN(), 0.0f};
  for (const Activation activation : kAll) {
    float out[3];
    gated_activation({x, nullptr, out, 1, 3, 3, 3, 3, activation}, variant());
    EXPECT_EQ(out[0], infinity);
    EXPECT_TRUE(std::isnan(out[1]));
    EXPECT_EQ(out[2], 0.0f);
  }
}

TEST_P(GatedActivationOf, BitsDoNotDependOnThreads) {
  constexpr std::int64_t kRows = 101, kColumns = 999;
  const auto gate = normal(kRows * kColumns, 1), up = normal(kRows * kColumns, 2);
  Array<float> one(kRows * kColumns), two(kRows * kColumns);
  const auto run = [&](Array<float>& out) {
    gated_activation({gate.data(), up.data(), out.data(), kRows, kColumns, kColumns, kColumns,
                      kColumns, Activation::silu},
                     variant());
  };
  with_threads(1, [&] { run(one); });
  with_threads(2, [&] { run(two); });
  EXPECT_TRUE(one.same_bits(two));
}

}  // namespace
}  // namespace attar::kernels
