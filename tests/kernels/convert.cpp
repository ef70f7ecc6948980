#include "compress/kernels/convert/convert.h"

#include <bit>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

// Plain definitions: sign, exponent and fraction as powers of two.
double plain_f16(std::uint16_t half) {
  const int exponent = (half >> 10) & 31, fraction = half & 1023;
  const double sign = half & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

class ConvertOf : public EachVariant {};
ATTAR_EACH_VARIANT(ConvertOf);

TEST_P(ConvertOf, EveryHalfWidensExactlyAndNarrowsBack) {
  Array<std::uint16_t> half(65536), back(65536);
  for (int i = 0; i < 65536; ++i) half[i] = static_cast<std::uint16_t>(i);
  Array<float> wide(65536);
  f16_to_f32(half.data(), wide.data(), 65536, variant());
  f32_to_f16(wide.data(), back.data(), 65536, variant());
  for (int i = 0; i < 65536; ++i) {
    const double expected = plain_f16(half[i]);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(wide[i]));
      ASSERT_EQ(back[i], half[i] | 0x200);  // quiet, the rest kept
    } else {
      ASSERT_EQ(wide[i], expected);
      ASSERT_EQ(std::signbit(wide[i]), (half[i] & 0x8000) != 0);
      ASSERT_EQ(back[i], half[i]);
    }
    ASSERT_EQ(std::bit_cast<std::uint32_t>(f16_value(half[i])),
              std::bit_cast<std::uint32_t>(wide[i]));
  }
  EXPECT_TRUE(wide.guards_hold() && back.guards_hold());
}

// Between every two neighbouring finite halves: just below, at and just above the middle.
TEST_P(ConvertOf, NarrowingToF16RoundsToNearestAndTiesToEven) {
  for (int i = 0; i < 0x7bff; ++i) {
    const double low = plain_f16(static_cast<std::uint16_t>(i));
    const double high = plain_f16(static_cast<std::uint16_t>(i + 1));
    const float middle = static_cast<float>((low + high) / 2);  // exact
    const float x[] = {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 1e9f), -middle};
    std::uint16_t got[4];
    f32_to_f16(x, got, 4, variant());
    const int even = i + (i & 1);
    ASSERT_EQ(got[0], i);
    ASSERT_EQ(got[1], even);
    ASSERT_EQ(got[2], i + 1);
    ASSERT_EQ(got[3], even | 0x8000);
    ASSERT_EQ(f16_bits(x[1]), even);
  }
}

TEST_P(ConvertOf, NarrowingToF16MeetsTheEdges) {
  const float x[] = {65519.996f,      65520.0f, 1e30f,     0x1p-25f,
                     0x1.000002p-25f, 1e-40f,   -INFINITY, -0.0f};
  const std::uint16_t expected[] = {0x7bff, 0x7c00, 0x7c00, 0, 1, 0, 0xfc00, 0x8000};
  std::uint16_t got[8];
  f32_to_f16(x, got, 8, variant());
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(got[i], expected[i]) << x[i];
    EXPECT_EQ(f16_bits(x[i]), expected[i]) << x[i];
  }
}

TEST_P(ConvertOf, EveryBf16KeepsItsBits) {
  Array<std::uint16_t> top(65536), back(65536);
  for (int i = 0; i < 65536; ++i) top[i] = static_cast<std::uint16_t>(i);
  Array<float> wide(65536);
  bf16_to_f32(top.data(), wide.data(), 65536, variant());
  f32_to_bf16(wide.data(), back.data(), 65536, variant());
  for (int i = 0; i < 65536; ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), static_cast<std::uint32_t>(i) << 16);
    const bool nan = (i & 0x7f80) == 0x7f80 && (i & 0x7f) != 0;
    ASSERT_EQ(back[i], nan ? i | 0x40 : i);
  }
}

TEST_P(ConvertOf, NarrowingToBf16RoundsToNearestAndTiesToEven) {
  const std::uint32_t words[] = {0x3f800000, 0x3f808000, 0x3f808001, 0x3f818000, 0x3f817fff,
                                 0x7f7fffff, 0x7f800001, 0xff800001, 0x7fffffff, 0x00008001};
  const std::uint16_t expected[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x3f81,
                                    0x7f80, 0x7fc0, 0xffc0, 0x7fff, 0x0001};
  float x[10];
  std::memcpy(x, words, sizeof x);
  std::uint16_t got[10];
  f32_to_bf16(x, got, 10, variant());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(got[i], expected[i]) << std::hex << words[i];
}

TEST_P(ConvertOf, EveryLengthWorksAtOddAddresses) {
  const auto values = normal(2 * kWidest + 1, 1);
  for (std::int64_t count = 0; count <= 2 * kWidest + 1; ++count) {
    Array<std::uint8_t> half(2 * count), brain(2 * count);  // at an odd address
    f32_to_f16(values.data(), half.data(), count, variant());
    f32_to_bf16(values.data(), brain.data(), count, variant());
    Array<float> a(count), b(count);
    f16_to_f32(half.data(), a.data(), count, variant());
    bf16_to_f32(brain.data(), b.data(), count, variant());
    for (std::int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(a[i], f16_value(f16_bits(values[i])));
      ASSERT_NEAR(b[i], values[i], std::abs(values[i]) / 256);
    }
    ASSERT_TRUE(half.guards_hold() && brain.guards_hold() && a.guards_hold() && b.guards_hold());
  }
}

}  // namespace
}  // namespace attar::kernels
