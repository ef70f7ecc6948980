#include "compress/kernels/ggml_blocks/ggml_blocks.h"

#include <algorithm>
#include <stdexcept>

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/convert/f16.h"
#include "compress/kernels/encode_blocks/encode_blocks.h"
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
  const GgmlBlockInfo& info = ggml_block_info(type);
  std::vector<std::uint8_t> bytes(count / info.elements * info.bytes);
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
     2.94733e-06},
    {GgmlBlock::q5_0, "402aa4a52d6dc07c38f3bf6b26e2ae5a15d18d49f4c0", 0.000234485},
    {GgmlBlock::q5_1, "742a40baa4a52d6db07b37e3af6a26d29d5905c18c48f4b0", 0.000168132},
    {GgmlBlock::iq4_nl, "ab1ee035acf157ce1369df249be136adf258", 0.00105866},
    {GgmlBlock::q2_k,
     "dedecddffedeffcedebcdeeedcefbeef68b1d66cb11b6c861bb1c66cb1d66cb21b6d861b71c628b1"
     "d76cb61b6d861bb11b7d862b71c62cb1db6c861b718628b1db6cb51b6c861ba1c66cb1db6cb61b6c"
     "01289d2a",
     0.0136806},
    {GgmlBlock::q3_k,
     "86dc2bc6fd23d67923dc3986fc2bd6fda451fe045bae05fbae51fba459fe045b4827e28d7823de89"
     "7722dd8877e29d785df2b79c2db68b5de2f7485d22b7882dfd6297c82d528bf8225688fd2e578b3d"
     "e2c7787dd29bbc2d968b7de2d7787dd2b69ab69a653aa600303ff033de9f",
     0.00370845},
    {GgmlBlock::q4_k,
     "de162c22fefffffcfffdfefecfdcfffea0156bc1278cd3489e045ab0167bc2378de349ae056ab126"
     "7cd2389de459af15268ce248ad0459b0157bd1379ce348ae046ac0267bd2379df359be156ac1268c"
     "9df359be157ac1268ce248ad0459b0157bd1379ce348ae046ac0267bd2379df3156ac1268cd2489d"
     "f459b0157bc1378ce348ae046ab0267bd2379de359ae156a",
     0.000736283},
    {GgmlBlock::q5_k,
     "8e125322fffdfdfdfffcfeffdfeffdcf326c9936cc9366c9b36499324c9926cc9366c9336c99364c"
     "9b66cdb366d9336c702be7a35f1ad6824d09c5813cf8b46f2be7935e1ad6824d09c5703cf8a36f2b"
     "5e1ad5914d09c4803cf8b36f2be6a25e1ad5914d09c4703cf7b36f2be6a25e1a3be8b36e2be6925e"
     "19c5814c08b4703cf7a36f2ad6925d19c5814c08b4703be71bd7824e0ab5713de9a4602cd8935f1b"
     "c6824e0ab5713de9a4601cd7935f1bc6",
     0.000177499},
    {GgmlBlock::q6_k,
     "d158bf37be25ad048b047bf37ad159d0c941ea63eb74fb741d951ea72fc841c9bf35ad169b048df2"
     "6be069d147cf38bd1a922c840d85ed77ff57d038b04aa22b67df58c139b22aa22b931c85fd76ee57"
     "ce5ad137b31a902c830f86ec78ff55d1c841da62eb63fc840d951ea63fb840c9d129b30b931c74fe"
     "86de67ff47d129b118b1c66cb11b6c861b71c61cb1c76cb22453f9248ef9138ef4538d2452f9248e"
     "d4a209d47e09a37e14a349d4ae09d77ec863be1463c9147ec923bec463bd1463807f897a867a8487"
     "7f737d7a81877c89758a",
     4.08259e-05},
    {GgmlBlock::iq4_xs,
     "ab8a0ccfe021fff2e035acf157ce1369df249be136adf258630fc942fea721ec751fda530eb842fd"
     "47be1269df248be035adf157ce137adf0269df138be035adf147ce1269df249b31ec8520db641fb9"
     "42fda731ec751fda8520db641fc942fea731ec851fda630e259cf147be0269df138be035adf147ce"
     "1fc952fea731ec8520db641fb942fda7",
     0.0010322}};

TEST(GgmlBlocks, AreByteForByteThoseOfGgml) {
  float x[256];
  for (int k = 0; k < 256; ++k) x[k] = static_cast<float>(37 * k % 101 - 50) / 64;
  for (const Golden& golden : kGolden) {
    const int count = ggml_block_info(golden.type).elements;
    const auto bytes = quantized(golden.type, x, count);
    EXPECT_EQ(hex(bytes), golden.bytes);
    float back[256];
    ggml_dequantize(golden.type, bytes.data(), count, back);
    double error = 0;
    for (int k = 0; k < count; ++k) error += std::pow(double(back[k]) - x[k], 2.0) / count;
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
  const auto x = normal(256 * 700, 1);
  for (const GgmlBlock type : {GgmlBlock::q4_1, GgmlBlock::iq4_nl, GgmlBlock::q4_k}) {
    std::vector<std::uint8_t> one, two;
    with_threads(1, [&] { one = quantized(type, x.data(), x.size()); });
    with_threads(2, [&] { two = quantized(type, x.data(), x.size()); });
    EXPECT_EQ(one, two);
  }
}

class GgmlType : public testing::TestWithParam<int> {
 protected:
  GgmlBlock type() const { return static_cast<GgmlBlock>(GetParam()); }
  const GgmlBlockInfo& info() const { return ggml_block_info(type()); }
};
INSTANTIATE_TEST_SUITE_P(All, GgmlType, testing::Range(0, 12));

// Every bit of a block means something, so random bytes come back.
TEST_P(GgmlType, PartsOfRandomBytesPackToTheSameBytes) {
  constexpr int kBlocks = 64;
  const std::int64_t count = kBlocks * info().elements, groups = count / info().group;
  std::vector<std::uint8_t> bytes(kBlocks * info().bytes), again(bytes.size()), codes(count);
  std::mt19937 engine(3);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(engine());
  std::vector<float> d(kBlocks), m(kBlocks);
  std::vector<std::int8_t> a(groups), b(groups);
  const GgmlParts parts = {codes.data(), d.data(), m.data(), a.data(), b.data()};
  ggml_unpack(type(), bytes.data(), count, parts);
  for (const std::uint8_t code : codes) ASSERT_LE(code, info().top);
  ggml_pack(type(), parts, count, again.data());
  for (int i = 0; i < kBlocks; ++i) {
    if (std::isnan(d[i]) || std::isnan(m[i])) continue;  // may come back as another NaN
    EXPECT_EQ(std::memcmp(&again[i * info().bytes], &bytes[i * info().bytes], info().bytes), 0);
  }
}

// A short tail, so that lanes of the widest vector stay empty.
TEST_P(GgmlType, ABlockIsTheSameWhateverStandsBesideIt) {
  const auto x = normal(3 * 256, 5, 0.02f);
  const auto all = quantized(type(), x.data(), x.size());
  const int last = info().elements;
  const auto alone = quantized(type(), x.data() + x.size() - last, last);
  EXPECT_EQ(hex({all.end() - info().bytes, all.end()}), hex(alone));
}

TEST(GgmlBlocks, MoreBitsAreCloser) {
  const auto x = normal(256 * 64, 9);
  double before = std::numeric_limits<double>::infinity();
  for (const GgmlBlock type :
       {GgmlBlock::q2_k, GgmlBlock::q3_k, GgmlBlock::q4_0, GgmlBlock::iq4_nl, GgmlBlock::q4_k,
        GgmlBlock::q5_0, GgmlBlock::q5_k, GgmlBlock::q6_k, GgmlBlock::q8_0}) {
    const auto bytes = quantized(type, x.data(), x.size());
    std::vector<float> back(x.size());
    ggml_dequantize(type, bytes.data(), x.size(), back.data());
    double error = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) error += std::pow(double(back[i]) - x[i], 2.0);
    EXPECT_LT(error, before) << static_cast<int>(type);
    before = error;
  }
}

class EncodeBlocksOf : public EachVariant {};
ATTAR_EACH_VARIANT(EncodeBlocksOf);

TEST_P(EncodeBlocksOf, GivesTheBytesAndTheDifferenceOfThePortableVariant) {
  constexpr int kBlocks = 37;  // no vector and no chunk divides it
  for (const float size : {0.02f, 1e6f, 1e-30f}) {
    const auto x = normal(kBlocks * 256, 4, size);
    for (int i = 0; i < 12; ++i) {
      const auto type = static_cast<GgmlBlock>(i);
      const auto encoded = [&](const Variant& variant) {
        std::vector<std::uint8_t> bytes(kBlocks * ggml_block_bytes(type));
        const float worst = encode_blocks({type, x.data(), bytes.data()}, kBlocks, variant);
        return std::pair(hex(bytes), std::isfinite(worst) ? worst : -1);
      };
      EXPECT_EQ(encoded(variant()), encoded(variants().back())) << i << " " << size;
    }
  }
}

// Also where numbers vanish or leave float16.
TEST_P(GgmlType, TheDifferenceIsThatOfTheBlocksValues) {
  for (const float size : {0.02f, 1e-30f, 1e4f, 1e9f}) {
    auto x = normal(256 * 20, 7, size);
    for (int i = 256; i < 512; ++i) x[i] = 0;
    for (int i = 512; i < 768; ++i) x[i] *= 1e-4f;
    std::vector<std::uint8_t> bytes(x.size() / info().elements * info().bytes);
    const float told = ggml_quantize(type(), x.data(), x.size(), bytes.data());
    std::vector<float> back(x.size());
    ggml_dequantize(type(), bytes.data(), x.size(), back.data());
    float worst = 0;
    for (std::int64_t i = 0; i < x.size() && !std::isnan(worst); ++i) {
      const float difference = std::fabs(back[i] - x[i]);
      if (!(difference <= worst)) worst = difference;
    }
    EXPECT_TRUE(told == worst || (std::isnan(told) && std::isnan(worst)))
        << told << " " << worst << " " << size;
  }
}

TEST_P(GgmlType, ANaNShowsInTheDifference) {
  auto x = normal(256 * 40, 7);
  x[256 * 33 + 5] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::uint8_t> bytes(x.size() / info().elements * info().bytes);
  EXPECT_TRUE(std::isnan(ggml_quantize(type(), x.data(), x.size(), bytes.data())));
  x[256 * 33 + 5] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(ggml_quantize(type(), x.data(), x.size(), bytes.data())));
}

class BlockSearchOf : public EachVariant {};
ATTAR_EACH_VARIANT(BlockSearchOf);

TEST_P(BlockSearchOf, GivesTheBitsOfThePortableVariant) {
  constexpr int kGroups = 37, kSize = 32;  // 37: no vector divides it
  const auto x = normal(kGroups * kSize, 2), noise = normal(kGroups * kSize, 3);
  std::vector<float> prices(x.size());
  for (std::int64_t i = 0; i < x.size(); ++i) prices[i] = noise[i] * noise[i];
  for (const GroupFit fit : {GroupFit::affine, GroupFit::affine_absolute, GroupFit::signed_codes,
                             GroupFit::signed_descent, GroupFit::table}) {
    const auto searched = [&](const Variant& variant) {
      std::vector<float> found(4 * kGroups);
      std::vector<std::uint8_t> codes(x.size());
      block_search({.fit = fit,
                    .size = kSize,
                    .top = 15,
                    .first = -0.9f,
                    .stride = 0.05f,
                    .tries = 36,
                    .values = x.data(),
                    .prices = prices.data(),
                    .scale = found.data(),
                    .minimum = found.data() + kGroups,
                    .codes = codes.data()},
                   kGroups, variant);
      group_prices({.fit = fit,
                    .size = kSize,
                    .top = 15,
                    .values = x.data(),
                    .prices = prices.data(),
                    .scale = found.data(),
                    .offset = found.data() + 3 * kGroups,
                    .error = found.data() + 2 * kGroups,
                    .moments = nullptr},
                   kGroups, variant);
      for (const std::uint8_t code : codes) found.push_back(code);
      return found;
    };
    EXPECT_EQ(searched(variant()), searched(variants().back()));
  }
}

}  // namespace
}  // namespace attar::kernels
