#include "compress/kernels/round_tokens/round_tokens.h"

#include <algorithm>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

// A scale of 1: 127.5 lies between 127 and 128, of which 127 is left; 0.5 and 1.5 go to even.
TEST(RoundTokens, MatchesAHandWorkedToken) {
  const float x[] = {127.5f, -127.5f, 1, 0.5f, 1.5f, -2.25f};
  float out[6];
  round_tokens({x, 6, out, 1, 6});
  const float expected[] = {127, -128, 1, 0, 2, -2};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(out[i], expected[i]) << i;
}

// Every number of E4M3, the middles between them, and what lies just beside a middle. 448 in front
// makes the scale 1.
TEST(RoundTokens, TakesTheNearestNumberOfE4m3AndAtATieTheEvenOne) {
  std::vector<float> numbers;
  for (int code = 0; code < 127; ++code) {
    const int exponent = code / 8, fraction = code % 8;
    numbers.push_back(exponent == 0 ? std::ldexp(float(fraction), -9)
                                    : std::ldexp(float(8 + fraction), exponent - 10));
  }
  ASSERT_EQ(numbers.back(), 448);
  std::vector<float> x = {448}, expected = {448};
  const auto want = [&](float value, float number) {
    x.insert(x.end(), {value, -value});
    expected.insert(expected.end(), {number, -number});
  };
  for (std::size_t i = 0; i + 1 < numbers.size(); ++i) {
    const float low = numbers[i], high = numbers[i + 1], middle = (low + high) / 2;
    want(low, low);
    want(std::nextafter(middle, 0.0f), low);
    want(middle, i % 2 == 0 ? low : high);
    want(std::nextafter(middle, 1000.0f), high);
  }
  const auto columns = static_cast<std::int64_t>(x.size());
  std::vector<float> out(x.size());
  round_tokens({x.data(), columns, out.data(), 1, columns, TokenGrid::e4m3});
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out[i], expected[i]) << x[i];
  x[1] = std::numeric_limits<float>::quiet_NaN();
  round_tokens({x.data(), columns, out.data(), 1, columns, TokenGrid::e4m3});
  EXPECT_TRUE(std::isnan(out[0]) && std::isnan(out[5]));
}

// Half a step of the token's own scale, and two roundings of float32.
TEST(RoundTokens, MovesAValueByAtMostHalfAStepOfItsToken) {
  const std::int64_t rows = 40, columns = 77, stride = 80;
  auto x = normal(rows * stride, 5);
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t i = 0; i < columns; ++i) x[t * stride + i] *= std::exp2(float(t) - 20);
  }
  Array<float> out(rows * columns);
  round_tokens({x.data(), stride, out.data(), rows, columns});
  EXPECT_TRUE(out.guards_hold());
  for (std::int64_t t = 0; t < rows; ++t) {
    const float* row = x.data() + t * stride;
    float largest = 0;
    for (std::int64_t i = 0; i < columns; ++i) largest = std::max(largest, std::abs(row[i]));
    for (std::int64_t i = 0; i < columns; ++i) {
      ASSERT_LE(std::abs(out[t * columns + i] - row[i]), largest * (1 / 255.0f + 0x1p-22f))
          << "token " << t << " channel " << i;
    }
  }
}

TEST(RoundTokens, ZerosStayAndWhatIsNotFiniteMakesItsTokenNan) {
  float x[12] = {0, -0.0f, 0, 1, 2, 3, 1, std::numeric_limits<float>::infinity(), 2};
  x[9] = x[11] = 1;
  x[10] = std::numeric_limits<float>::quiet_NaN();
  round_tokens({x, 3, x, 4, 3});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(x[i], 0) << i;
  EXPECT_NEAR(x[5], 3, 3 / 255.0 + 1e-6);
  for (int i = 6; i < 12; ++i) EXPECT_TRUE(std::isnan(x[i])) << i;
}

TEST(RoundTokens, BitsAreTheSameBesideOtherTokensAndWithMoreThreads) {
  const std::int64_t rows = 300, columns = 576;
  const auto x = normal(rows * columns, 6);
  Array<float> one(x.size()), more(x.size()), alone(x.size());
  with_threads(1, [&] { round_tokens({x.data(), columns, one.data(), rows, columns}); });
  with_threads(3, [&] { round_tokens({x.data(), columns, more.data(), rows, columns}); });
  for (std::int64_t t = 0; t < rows; ++t) {
    round_tokens({x.data() + t * columns, columns, alone.data() + t * columns, 1, columns});
  }
  EXPECT_TRUE(more.same_bits(one));
  EXPECT_TRUE(alone.same_bits(one));
}

}  // namespace
}  // namespace attar::kernels
