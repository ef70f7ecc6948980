#include "compress/kernels/ggml_blocks/ggml_blocks.h"

#include <stdexcept>

#include "compress/kernels/convert/f16.h"
#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

std::string hex(const std::vector<std::uint8_t>& bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::vector<std::uint8_t> quantized(GgmlBlock type, const float* x, std::int64_t count) {
  std::vector<std::uint8_t> bytes(count / 32 * ggml_block_bytes(type));
  ggml_quantize(type, x, count, bytes.data());
  return bytes;
}

struct Golden {
  GgmlBlock type;
  const char* bytes;
  double mean_square_error;
};

// Written by ggml from x[k] = ((37 k) mod 101 - 50) / 64.
constexpr Golden kGolden[] = {
    {GgmlBlock::q4_0, "402ee046acf258bd1379df358be046acf268", 0.00109577},
    {GgmlBlock::q4_1, "ab2e40bad0369bf257bd1369ce258ae0469cf258", 0.00115865},
    {GgmlBlock::q8_0, "4d1e81df3d9af856b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc",
     2.94733e-06}};

TEST(GgmlBlocks, AreByteForByteThoseOfGgml) {
  float x[32];
  for (int k = 0; k < 32; ++k) x[k] = static_cast<float>(37 * k % 101 - 50) / 64;
  for (const Golden& golden : kGolden) {
    const auto bytes = quantized(golden.type, x, 32);
    EXPECT_EQ(hex(bytes), golden.bytes);
    float back[32];
    ggml_dequantize(golden.type, bytes.data(), 32, back);
    double error = 0;
    for (int k = 0; k < 32; ++k) error += std::pow(double(back[k]) - x[k], 2.0) / 32;
    EXPECT_NEAR(error, golden.mean_square_error, 1e-5 * golden.mean_square_error);
  }
}

// The largest value is 127, so a step is 1: halves go away from zero, just under a half does not.
TEST(GgmlBlocks, Q8RoundsHalvesAwayFromZero) {
  float x[32] = {127, 0.5f, -0.5f, 2.5f, -2.5f, 126.5f, 0.49999997f, -3.4999998f};
  const int expected[] = {127, 1, -1, 3, -3, 127, 0, -3, 0};
  const auto bytes = quantized(GgmlBlock::q8_0, x, 32);
  for (int i = 0; i < 9; ++i)
    EXPECT_EQ(static_cast<std::int8_t>(bytes[2 + i]), expected[i]) << x[i];
}

// Half a step, or a whole one where Q4_0 clips its last code, plus the rounding of d (and m) to
// f16.
TEST(GgmlBlocks, ReconstructionStaysWithinAStep) {
  const auto x = normal(32 * 50, 1);
  for (const GgmlBlock type : {GgmlBlock::q8_0, GgmlBlock::q4_0, GgmlBlock::q4_1}) {
    const auto bytes = quantized(type, x.data(), x.size());
    Array<float> back(x.size());
    ggml_dequantize(type, bytes.data(), x.size(), back.data());
    EXPECT_TRUE(back.guards_hold());
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const std::uint8_t* block = bytes.data() + i / 32 * ggml_block_bytes(type);
      const double d = std::abs(f16_value(static_cast<std::uint16_t>(block[0] | block[1] << 8)));
      const double step = type == GgmlBlock::q4_0 ? d : d / 2;
      ASSERT_NEAR(back[i], x[i], step + 6 * 0x1p-11) << "element " << i;  // |x| < 6
    }
  }
}

TEST(GgmlBlocks, PackingGivesTheBlocksThatHoldTheCodes) {
  for (const GgmlBlock type : {GgmlBlock::q8_0, GgmlBlock::q4_0, GgmlBlock::q4_1}) {
    std::uint8_t codes[64];
    for (int i = 0; i < 64; ++i) {
      codes[i] = static_cast<std::uint8_t>(type == GgmlBlock::q8_0 ? (i * 37) % 256 : i * 7 % 16);
    }
    const float scale[] = {0.5f, -2.0f}, minimum[] = {-1.0f, 3.0f};
    std::vector<std::uint8_t> bytes(2 * ggml_block_bytes(type));
    ggml_pack(type, codes, scale, type == GgmlBlock::q4_1 ? minimum : nullptr, 64, bytes.data());
    float values[64];
    ggml_dequantize(type, bytes.data(), 64, values);
    for (int i = 0; i < 64; ++i) {
      const int zero = type == GgmlBlock::q8_0 ? 128 : type == GgmlBlock::q4_0 ? 8 : 0;
      const float offset = type == GgmlBlock::q4_1 ? minimum[i / 32] : 0;
      EXPECT_EQ(values[i], scale[i / 32] * static_cast<float>(codes[i] - zero) + offset);
    }
  }
}

TEST(GgmlBlocks, ZeroRowsAndBadValuesHurtNobodyElse) {
  std::vector<float> x(96, 0.0f);
  for (int i = 64; i < 96; ++i) x[i] = static_cast<float>(i);
  for (const GgmlBlock type : {GgmlBlock::q8_0, GgmlBlock::q4_0, GgmlBlock::q4_1}) {
    const auto clean = quantized(type, x.data(), 96);
    float back[96];
    ggml_dequantize(type, clean.data(), 96, back);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(back[i], 0.0f);
    auto spoilt = x;
    spoilt[40] = std::numeric_limits<float>::quiet_NaN();
    spoilt[41] = std::numeric_limits<float>::infinity();
    spoilt[42] = 1e-44f;
    const auto bytes = quantized(type, spoilt.data(), 96);
    const std::int64_t size = ggml_block_bytes(type);
    EXPECT_EQ(std::memcmp(bytes.data(), clean.data(), size), 0);
    EXPECT_EQ(std::memcmp(bytes.data() + 2 * size, clean.data() + 2 * size, size), 0);
  }
}

TEST(GgmlBlocks, RefuseACountThatIsNotAMultipleOf32) {
  float x[32] = {};
  std::uint8_t bytes[34] = {};
  EXPECT_THROW(ggml_quantize(GgmlBlock::q8_0, x, 31, bytes), std::invalid_argument);
  EXPECT_THROW(ggml_dequantize(GgmlBlock::q8_0, bytes, -32, x), std::invalid_argument);
}

TEST(GgmlBlocks, BytesDoNotDependOnThreads) {
  const auto x = normal(32 * 5000, 1);
  std::vector<std::uint8_t> one, two;
  with_threads(1, [&] { one = quantized(GgmlBlock::q4_1, x.data(), x.size()); });
  with_threads(2, [&] { two = quantized(GgmlBlock::q4_1, x.data(), x.size()); });
  EXPECT_EQ(one, two);
}

}  // namespace
}  // namespace attar::kernels
