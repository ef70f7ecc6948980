#include "compress/kernels/rotate/rotate.h"

#include <stdexcept>

#include "compress/kernels/rms_norm/rms_norm.h"
#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

class RotateOf : public EachVariant {};
ATTAR_EACH_VARIANT(RotateOf);

constexpr std::int64_t kPositions = 11;

struct Table {
  Array<float> cosines, sines;
};

Table table(std::int64_t pairs) {
  Table made = {Array<float>(kPositions * pairs), Array<float>(kPositions * pairs)};
  for (std::int64_t p = 0; p < kPositions; ++p) {
    for (std::int64_t j = 0; j < pairs; ++j) {
      const double angle = static_cast<double>(p) / std::pow(100.0, double(j) / double(pairs));
      made.cosines[p * pairs + j] = static_cast<float>(std::cos(angle));
      made.sines[p * pairs + j] = static_cast<float>(std::sin(angle));
    }
  }
  return made;
}

// Exact, not near: two rounded products and one rounded sum, as fp32 does it anywhere.
TEST_P(RotateOf, GivesTheRoundedProductsAndSumForEveryLength) {
  constexpr std::int64_t kTokens = 5, kHeads = 3;
  for (std::int64_t pairs = 1; pairs <= 2 * kWidest + 1; ++pairs) {
    const std::int64_t head_dim = 2 * pairs + 3;  // three components are left alone
    const std::int64_t stride = kHeads * head_dim + 1;
    const Table angles = table(pairs);
    const auto before = normal(kTokens * stride, 1);
    auto after = before;
    rotate({.states = after.data(),
            .token_stride = stride,
            .tokens = kTokens,
            .heads = kHeads,
            .head_dim = head_dim,
            .rotary_dim = 2 * pairs,
            .cosines = angles.cosines.data(),
            .sines = angles.sines.data(),
            .table_positions = kPositions,
            .first_position = 2},
           variant());
    auto expected = before;
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        for (std::int64_t j = 0; j < pairs; ++j) {
          const std::int64_t low = t * stride + h * head_dim + j, high = low + pairs;
          const float cosine = angles.cosines[(t + 2) * pairs + j];
          const float sine = angles.sines[(t + 2) * pairs + j];
          volatile float a = before[low] * cosine, b = before[high] * sine;
          volatile float c = before[high] * cosine, d = before[low] * sine;
          expected[low] = a - b;
          expected[high] = c + d;
        }
      }
    }
    ASSERT_TRUE(after.same_bits(expected)) << "pairs " << pairs;
    ASSERT_TRUE(after.guards_hold());
  }
}

TEST_P(RotateOf, GivenPositionsReplaceTheRunningOne) {
  const Table angles = table(8);
  const std::int64_t positions[] = {7, 0, 7};
  auto states = normal(3 * 16, 1);
  for (int i = 0; i < 16; ++i) states[32 + i] = states[i];
  const auto before = states;
  rotate({.states = states.data(),
          .token_stride = 16,
          .tokens = 3,
          .heads = 1,
          .head_dim = 16,
          .rotary_dim = 16,
          .cosines = angles.cosines.data(),
          .sines = angles.sines.data(),
          .table_positions = kPositions,
          .positions = positions},
         variant());
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(states[i], states[32 + i]);
    EXPECT_EQ(states[16 + i], before[16 + i]);  // position 0 turns nothing
    EXPECT_NE(states[i], before[i]);
  }
}

// Norm and rotation at once are the two one after the other.
TEST_P(RotateOf, NormsEachHeadFirst) {
  constexpr std::int64_t kTokens = 3, kHeads = 2;
  for (const std::int64_t pairs : {1, 5, 8, 16, 33}) {
    const std::int64_t head_dim = 2 * pairs, stride = kHeads * head_dim + 1;
    const Table angles = table(pairs);
    const auto norm = normal(head_dim, 2);
    auto together = normal(kTokens * stride, 1), apart = together;
    Rotate call{.states = together.data(),
                .token_stride = stride,
                .tokens = kTokens,
                .heads = kHeads,
                .head_dim = head_dim,
                .rotary_dim = head_dim,
                .cosines = angles.cosines.data(),
                .sines = angles.sines.data(),
                .table_positions = kPositions,
                .norm = norm.data(),
                .norm_eps = 1e-3F};
    rotate(call, variant());
    for (std::int64_t t = 0; t < kTokens; ++t) {
      float* token = apart.data() + t * stride;
      rms_norm({token, norm.data(), token, kHeads, head_dim, call.norm_eps}, variant());
    }
    call.states = apart.data();
    call.norm = nullptr;
    rotate(call, variant());
    ASSERT_TRUE(together.same_bits(apart)) << "pairs " << pairs;
    ASSERT_TRUE(together.guards_hold());
  }
}

TEST(Rotate, RefusesAPositionOutsideTheTable) {
  const Table angles = table(1);
  float states[4] = {};
  Rotate call = {.states = states,
                 .token_stride = 2,
                 .tokens = 2,
                 .heads = 1,
                 .head_dim = 2,
                 .rotary_dim = 2,
                 .cosines = angles.cosines.data(),
                 .sines = angles.sines.data(),
                 .table_positions = kPositions,
                 .first_position = kPositions - 1};
  EXPECT_THROW(rotate(call), std::invalid_argument);
  call.first_position = -1;
  EXPECT_THROW(rotate(call), std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
