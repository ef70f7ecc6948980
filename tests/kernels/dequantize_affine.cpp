#include "compress/kernels/dequantize_affine/dequantize_affine.h"

#include <stdexcept>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

Array<std::uint8_t> random_codes(std::int64_t count, int bits) {
  Array<std::uint8_t> codes(count);
  std::mt19937 engine(5);
  for (std::int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<std::uint8_t>(engine() & ((1u << bits) - 1));
  }
  return codes;
}

class DequantizeAffineOf : public EachVariant {};
ATTAR_EACH_VARIANT(DequantizeAffineOf);

// Exact: the order of the two operations is part of the contract.
TEST_P(DequantizeAffineOf, RoundsTwiceInTheStatedOrderForEveryLengthAndGroup) {
  for (const Offset meaning : {Offset::zero, Offset::minimum}) {
    for (std::int64_t columns = 1; columns <= 2 * kWidest + 1; ++columns) {
      for (const std::int64_t group_size : {1L, 5L, 16L, 64L}) {
        const std::int64_t groups = (columns + group_size - 1) / group_size;
        const auto codes = random_codes(3 * columns, 8);
        const auto scale = normal(3 * groups, 1), offset = normal(3 * groups, 2, 9.0f);
        Array<float> out(3 * columns);
        dequantize_affine({codes.data(), scale.data(), offset.data(), out.data(), 3, columns,
                           group_size, meaning},
                          variant());
        for (std::int64_t i = 0; i < 3 * columns; ++i) {
          const std::int64_t g = i / columns * groups + i % columns / group_size;
          volatile float first =
              meaning == Offset::zero ? codes[i] - offset[g] : scale[g] * codes[i];
          const float expected = meaning == Offset::zero ? scale[g] * first : first + offset[g];
          ASSERT_EQ(out[i], expected) << "columns " << columns << " group " << group_size;
        }
        ASSERT_TRUE(out.guards_hold());
      }
    }
  }
}

TEST(DequantizeAffine, RefusesAnEmptyGroup) {
  AffineCodes call = {};
  EXPECT_THROW(dequantize_affine(call), std::invalid_argument);
}

// compressed-tensors: int4 -8..7 (stored + 8), int8 -128, -1, 0, 127 (stored + 128).
TEST(PackCodes, MatchesTheGoldenWords) {
  std::uint8_t nibbles[16];
  for (int i = 0; i < 16; ++i) nibbles[i] = static_cast<std::uint8_t>(i);
  std::uint32_t words[2];
  pack_codes(nibbles, 1, 16, 4, words);
  EXPECT_EQ(words[0], 0x76543210u);
  EXPECT_EQ(words[1], 0xfedcba98u);
  const std::uint8_t bytes[] = {0, 127, 128, 255};
  pack_codes(bytes, 1, 4, 8, words);
  EXPECT_EQ(words[0], 0xff807f00u);
}

// k mod 8 for k = 0..31, three bits each: codes cross words.
TEST(PackCodes, LetsCodesCrossWords) {
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>(i % 8);
  std::uint32_t words[3];
  pack_codes(codes, 1, 32, 3, words);
  EXPECT_EQ(words[0], 0x88fac688u);
  EXPECT_EQ(words[1], 0xc688fac6u);
  EXPECT_EQ(words[2], 0xfac688fau);
}

TEST(PackCodes, UnpackingGivesTheCodesBackForEveryWidthAndLength) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (std::int64_t columns = 1; columns <= 70; ++columns) {
      const auto codes = random_codes(3 * columns, bits);
      Array<std::uint32_t> words(3 * packed_words(columns, bits));
      Array<std::uint8_t> back(3 * columns);
      pack_codes(codes.data(), 3, columns, bits, words.data());
      unpack_codes(words.data(), 3, columns, bits, back.data());
      ASSERT_TRUE(back.same_bits(codes)) << bits << " bits, " << columns << " columns";
      ASSERT_TRUE(words.guards_hold() && back.guards_hold());
    }
  }
}

TEST(PackCodes, CountsWordsAndRefusesOtherWidths) {
  EXPECT_EQ(packed_words(32, 3), 3);
  EXPECT_EQ(packed_words(33, 3), 4);
  EXPECT_EQ(packed_words(1, 8), 1);
  EXPECT_THROW(packed_words(32, 1), std::invalid_argument);
  EXPECT_THROW(packed_words(32, 9), std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
