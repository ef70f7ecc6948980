#include "compress/kernels/coded_heads/coded_heads.h"

#include <algorithm>
#include <stdexcept>

#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/rotate/rotate.h"
#include "compress/kernels/simd/portable.h"
#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes coded(const float* states, const HeadRows& rows, int bits) {
  const std::int64_t stride = rows.heads * coded_head_bytes(rows.head_dim, bits);
  Bytes out(static_cast<std::size_t>(rows.tokens * stride));
  code_heads(states, rows, bits, out.data(), stride);
  return out;
}

std::vector<float> decoded(const std::uint8_t* head, std::int64_t head_dim, int bits) {
  std::vector<float> values(static_cast<std::size_t>((head_dim + 15) / 16 * 16));
  decode_head<Portable>(head, head_dim, bits, values.data());
  values.resize(static_cast<std::size_t>(head_dim));
  return values;
}

// Range 0 .. 30 in 15 steps of 2, minimum -4: codes 0, 15, 2, 1 (3 lies between two steps of 2 from
// -4: 3.5, to even 4).
TEST(CodeHeads, MatchesAHandWorkedHeadOfFourBits) {
  const float head[] = {-4, 26, 0, -2, 3, 26};
  const Bytes bytes = coded(head, {6, 1, 1, 6}, 4);
  const Bytes expected = {0x00, 0x40, 0x00, 0xc4,  // 2 and -4 as float16
                          0x10, 0x4f, 0xf2};       // codes 0 and 1, 15 and 4, 2 and 15
  EXPECT_EQ(bytes, expected);
  EXPECT_EQ(decoded(bytes.data(), 6, 4), (std::vector<float>{-4, 26, 0, -2, 4, 26}));
}

// Half a step, and what float16 takes from the scale (2^-11 of the range) and from the minimum.
TEST(CodeHeads, MoveAValueByAtMostHalfAStep) {
  for (const int bits : {8, 4}) {
    for (const std::int64_t head_dim : {2, 16, 32, 34, 64, 80, 96, 128, 256}) {
      const std::int64_t tokens = 9, heads = 3;
      const HeadRows rows{heads * head_dim + 5, tokens, heads, head_dim};
      const auto x = normal(tokens * rows.token_stride, 3, 20);
      const Bytes bytes = coded(x.data(), rows, bits);
      const std::int64_t size = coded_head_bytes(head_dim, bits);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t h = 0; h < heads; ++h) {
          const float* head = x.data() + t * rows.token_stride + h * head_dim;
          const auto values = decoded(bytes.data() + (t * heads + h) * size, head_dim, bits);
          for (std::int64_t d = 0; d < head_dim; ++d) {
            const float* group = head + d / kCodedGroup * kCodedGroup;
            const auto count = std::min(kCodedGroup, head_dim - d / kCodedGroup * kCodedGroup);
            const auto [low, high] = std::minmax_element(group, group + count);
            const float range = *high - *low;
            const float half_step = range / static_cast<float>((1 << bits) - 1) / 2;
            const float rounding = 0x1p-10f * (range + std::abs(*low));
            ASSERT_LE(std::abs(values[static_cast<std::size_t>(d)] - head[d]), half_step + rounding)
                << bits << " bits, " << head_dim << " channels, channel " << d;
          }
        }
      }
    }
  }
}

TEST(CodeHeads, OfOneValueOrAllAlikeAreExactAndANanStaysOne) {
  std::vector<float> flat(64, 1.5f);
  EXPECT_EQ(decoded(coded(flat.data(), {64, 1, 1, 64}, 4).data(), 64, 4), flat);
  flat[40] = std::numeric_limits<float>::quiet_NaN();
  const auto values = decoded(coded(flat.data(), {64, 1, 1, 64}, 8).data(), 64, 8);
  EXPECT_EQ(values[31], 1.5f);
  for (std::size_t d = 32; d < 64; ++d) EXPECT_TRUE(std::isnan(values[d]));
  flat[40] = -std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(decoded(coded(flat.data(), {64, 1, 1, 64}, 8).data(), 64, 8)[40]));
}

TEST(CodeHeads, RefuseOtherBitsAndOddHeads) {
  const float x[6] = {};
  EXPECT_THROW(coded(x, {6, 1, 1, 6}, 3), std::invalid_argument);
  EXPECT_THROW(coded(x, {5, 1, 1, 5}, 4), std::invalid_argument);
}

// Orthonormal and its own inverse: products of two heads stay, and twice is nothing.
TEST(MixChannels, KeepsProductsAndUndoesItself) {
  for (const std::int64_t head_dim : {2, 6, 16, 64, 80, 96, 128, 256}) {
    const HeadRows rows{2 * head_dim + 1, 5, 2, head_dim};
    const auto x = normal(5 * rows.token_stride, 4);
    auto mixed = x;
    mix_channels(mixed.data(), rows);
    const auto product = [&](const Array<float>& of) {
      double sum = 0;
      for (std::int64_t d = 0; d < head_dim; ++d) sum += double(of[d]) * of[head_dim + d];
      return sum;
    };
    EXPECT_NEAR(product(mixed), product(x), 1e-5 * static_cast<double>(head_dim));
    EXPECT_GT(std::abs(mixed[0] - x[0]), 1e-3) << head_dim;
    mix_channels(mixed.data(), rows);
    for (std::int64_t i = 0; i < x.size(); ++i) ASSERT_NEAR(mixed[i], x[i], 1e-5) << head_dim;
  }
}

// The one large channel of a head of 64 becomes an eighth of itself everywhere.
TEST(MixChannels, SpreadsALargeChannelOverAll) {
  std::vector<float> head(64, 0.0f);
  head[37] = 80;
  mix_channels(head.data(), {64, 1, 1, 64});
  for (const float value : head) EXPECT_EQ(std::abs(value), 10.0f);
}

struct Cached {
  std::int64_t heads, kv_heads, dim, tokens;
  int bits;
  Array<float> q, k, v;
  Bytes k_codes, v_codes;

  std::int64_t kv_width() const { return kv_heads * dim; }
};

Cached make_cached(std::int64_t heads, std::int64_t kv_heads, std::int64_t dim, std::int64_t tokens,
                   int bits) {
  Cached made{heads,
              kv_heads,
              dim,
              tokens,
              bits,
              normal(tokens * heads * dim, 1),
              normal(tokens * kv_heads * dim, 2),
              normal(tokens * kv_heads * dim, 3),
              {},
              {}};
  const HeadRows rows{made.kv_width(), tokens, kv_heads, dim};
  made.k_codes = coded(made.k.data(), rows, bits);
  made.v_codes = coded(made.v.data(), rows, bits);
  const std::int64_t size = coded_head_bytes(dim, bits);
  for (std::int64_t i = 0; i < tokens * kv_heads; ++i) {
    const auto k = decoded(made.k_codes.data() + i * size, dim, bits);
    const auto v = decoded(made.v_codes.data() + i * size, dim, bits);
    std::copy(k.begin(), k.end(), made.k.data() + i * dim);
    std::copy(v.begin(), v.end(), made.v.data() + i * dim);
  }
  return made;
}

// The queries [begin, end), over the codes or over what they mean.
void attend(const Cached& c, std::int64_t begin, std::int64_t end, float* out, bool codes,
            const Variant& variant, CodedAttention coded = {}) {
  const std::int64_t width = c.heads * c.dim;
  AttentionSequence sequence{c.q.data() + begin * width, c.k.data(),  c.v.data(),
                             out + begin * width,        end - begin, end};
  if (codes) {
    sequence.k = sequence.v = nullptr;
    sequence.k_codes = c.k_codes.data();
    sequence.v_codes = c.v_codes.data();
    coded.bits = c.bits;
    coded.stride = c.kv_heads * coded_head_bytes(c.dim, c.bits);
  }
  causal_attention({&sequence, 1, c.heads, c.kv_heads, c.dim, width, c.kv_width(), c.kv_width(),
                    width, 0.125f, coded},
                   variant);
}

class CodedAttentionOf : public EachVariant {};
ATTAR_EACH_VARIANT(CodedAttentionOf);

TEST_P(CodedAttentionOf, HasTheBitsOfAttentionOverTheDecodedValues) {
  for (const int bits : {8, 4}) {
    for (const std::int64_t dim : {6, 16, 34, 64, 80, 128, 256}) {
      const Cached c = make_cached(6, 2, dim, 70, bits);
      Array<float> floats(c.q.size()), codes(c.q.size());
      attend(c, 0, c.tokens, floats.data(), false, variant());
      attend(c, 0, c.tokens, codes.data(), true, variant());
      EXPECT_TRUE(codes.guards_hold());
      ASSERT_TRUE(codes.same_bits(floats)) << bits << " bits, " << dim << " channels";
    }
  }
}

TEST_P(CodedAttentionOf, BitsAreTheSameAtOnceAndTokenByToken) {
  const Cached c = make_cached(9, 3, 64, 140, 4);
  Array<float> whole(c.q.size()), single(c.q.size());
  attend(c, 0, c.tokens, whole.data(), true, variant());
  for (std::int64_t t = 0; t < c.tokens; ++t) attend(c, t, t + 1, single.data(), true, variant());
  EXPECT_TRUE(single.same_bits(whole));
}

// Keys without their bias are coded; with it given, scores are those of the whole keys.
TEST_P(CodedAttentionOf, PutsABiasBackThatWasTakenOffTheKeys) {
  Cached c = make_cached(4, 2, 64, 90, 8);
  const std::int64_t pairs = 32;
  Array<float> cosines(c.tokens * pairs), sines(c.tokens * pairs);
  for (std::int64_t i = 0; i < c.tokens * pairs; ++i) {
    const double angle = double(i / pairs) * std::pow(0.8, double(i % pairs));
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
  const auto bias = normal(c.kv_width(), 9, 3);
  Array<float> turned(c.k.size());
  for (std::int64_t i = 0; i < turned.size(); ++i) turned[i] = bias[i % c.kv_width()];
  rotate(
      {turned.data(), c.kv_width(), c.tokens, 2, 64, 64, cosines.data(), sines.data(), c.tokens});
  mix_channels(turned.data(), {c.kv_width(), c.tokens, 2, 64});
  for (std::int64_t i = 0; i < c.k.size(); ++i) c.k[i] += turned[i];
  Array<float> floats(c.q.size()), codes(c.q.size());
  attend(c, 0, c.tokens, floats.data(), false, variant());
  attend(c, 0, c.tokens, codes.data(), true, variant(),
         {.key_bias = bias.data(), .cosines = cosines.data(), .sines = sines.data()});
  for (std::int64_t i = 0; i < codes.size(); ++i) ASSERT_NEAR(codes[i], floats[i], 2e-5) << i;
}

TEST(CodedAttention, RefusesOtherBits) {
  Cached c = make_cached(2, 1, 16, 4, 8);
  c.bits = 5;
  Array<float> out(c.q.size());
  EXPECT_THROW(attend(c, 0, 4, out.data(), true, active_variant()), std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
