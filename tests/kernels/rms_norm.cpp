#include "compress/kernels/rms_norm/rms_norm.h"

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

class RmsNormOf : public EachVariant {};
ATTAR_EACH_VARIANT(RmsNormOf);

// A lane sums at most columns/16 + 1 squares (portable: four vectors of four), and 4 more additions
// join the lanes: the mean is off by (columns/16 + 7) units, the root by half of that; division,
// narrowing and two products add 4.
double relative_bound(std::int64_t columns) {
  return ((static_cast<double>(columns) / 16 + 7) / 2 + 4) * kUnit;
}

TEST_P(RmsNormOf, AgreesWithDoubleArithmeticForEveryLengthAndAlignment) {
  constexpr float kEps = 1e-5f;
  for (std::int64_t columns = 1; columns <= 4 * kWidest + 2; ++columns) {
    for (int offset = 0; offset < 3; ++offset) {
      const auto x = normal(3 * columns, 1, 2.0f, offset), weight = normal(columns, 2, 1, offset);
      Array<float> out(3 * columns, offset);
      rms_norm({x.data(), weight.data(), out.data(), 3, columns, kEps}, variant());
      for (std::int64_t r = 0; r < 3; ++r) {
        double squares = 0;
        for (std::int64_t c = 0; c < columns; ++c) squares += std::pow(x[r * columns + c], 2.0);
        const double root = std::sqrt(squares / static_cast<double>(columns) + kEps);
        for (std::int64_t c = 0; c < columns; ++c) {
          const double expected = x[r * columns + c] / root * weight[c];
          ASSERT_NEAR(out[r * columns + c], expected, relative_bound(columns) * std::abs(expected))
              << "columns " << columns << " row " << r << " column " << c;
        }
      }
      ASSERT_TRUE(out.guards_hold()) << "columns " << columns;
    }
  }
}

TEST_P(RmsNormOf, AddingFirstGivesTheBitsOfTheSeparateSteps) {
  for (const std::int64_t columns : {1, 17, 576, 577}) {
    auto x = normal(2 * columns, 1), sum = x;
    const auto delta = normal(2 * columns, 2), weight = normal(columns, 3);
    for (std::int64_t i = 0; i < 2 * columns; ++i) sum[i] += delta[i];
    Array<float> expected(2 * columns), out(2 * columns);
    rms_norm({sum.data(), weight.data(), expected.data(), 2, columns, 1e-6f}, variant());
    add_rms_norm({x.data(), delta.data(), weight.data(), out.data(), 2, columns, 1e-6f}, variant());
    EXPECT_TRUE(x.same_bits(sum));
    EXPECT_TRUE(out.same_bits(expected));
    EXPECT_TRUE(x.guards_hold() && out.guards_hold());
  }
}

TEST_P(RmsNormOf, MatchesAHandWorkedRow) {
  const float x[] = {3, 4}, weight[] = {2, 10};
  float out[2];
  rms_norm({x, weight, out, 1, 2, 0.0f}, variant());  // root mean square 5 / sqrt 2
  EXPECT_FLOAT_EQ(out[0], 1.69705627f);
  EXPECT_FLOAT_EQ(out[1], 11.3137085f);
}

TEST_P(RmsNormOf, BitsDoNotDependOnThreadsOrOnOtherRows) {
  constexpr std::int64_t kRows = 301, kColumns = 577;
  const auto x = normal(kRows * kColumns, 1), weight = normal(kColumns, 2);
  Array<float> one(kRows * kColumns), two(kRows * kColumns), alone(kRows * kColumns);
  with_threads(1, [&] {
    rms_norm({x.data(), weight.data(), one.data(), kRows, kColumns, 1e-5f}, variant());
  });
  with_threads(2, [&] {
    rms_norm({x.data(), weight.data(), two.data(), kRows, kColumns, 1e-5f}, variant());
  });
  for (std::int64_t r = 0; r < kRows; ++r) {
    rms_norm(
        {x.data() + r * kColumns, weight.data(), alone.data() + r * kColumns, 1, kColumns, 1e-5f},
        variant());
  }
  EXPECT_TRUE(one.same_bits(two));
  EXPECT_TRUE(one.same_bits(alone));
}

}  // namespace
}  // namespace attar::kernels
