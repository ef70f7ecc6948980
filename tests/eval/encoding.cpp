#include "eval/encoding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "tests/eval/fake_model.h"

namespace attar::eval {
namespace {

using testing::ByteTokenizer;
using ::testing::ElementsAre;

TEST(EncodePair, MovesWhitespaceAtTheEndOfTheContextToTheTarget) {
  const EncodedRequest request = encode_pair(ByteTokenizer(), "ab \n", " c");
  EXPECT_THAT(request.context, ElementsAre('a', 'b'));
  EXPECT_THAT(request.target, ElementsAre(' ', '\n', ' ', 'c'));
}

TEST(EncodePair, PutsThePrefixTokenBeforeAnEmptyContext) {
  const EncodedRequest request = encode_pair(ByteTokenizer(true), "", " c");
  EXPECT_THAT(request.context, ElementsAre(ByteTokenizer::kBos));
  EXPECT_THAT(request.target, ElementsAre(' ', 'c'));
}

TEST(EncodePair, KeepsTheBosOfATokenizerThatAddsOne) {
  const EncodedRequest request = encode_pair(ByteTokenizer(true), "a", "b");
  EXPECT_THAT(request.context, ElementsAre(ByteTokenizer::kBos, 'a'));
  EXPECT_THAT(request.target, ElementsAre('b'));
}

TEST(EncodePair, RefusesATargetWithoutTokens) {
  EXPECT_THROW(encode_pair(ByteTokenizer(), "a", ""), BadInput);
}

TEST(CutLeft, KeepsTheEndOfTheContext) {
  EncodedRequest request{{1, 2, 3, 4}, {5, 6}};
  cut_left(request, 5);
  EXPECT_THAT(request.context, ElementsAre(1, 2, 3, 4)) << "the last target token is not fed";
  cut_left(request, 3);
  EXPECT_THAT(request.context, ElementsAre(3, 4));
  EXPECT_EQ(request.input_tokens(), 3);
  EXPECT_THROW(cut_left(request, 1), DoesNotFit);
}

TEST(RollingWindows, GiveTheLastWindowAFullInput) {
  const std::vector<TokenId> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const auto windows = rolling_windows(ids, 0, 4);
  ASSERT_EQ(windows.size(), 3U);
  EXPECT_THAT(windows[0].context, ElementsAre(0));
  EXPECT_THAT(windows[0].target, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(windows[1].context, ElementsAre(4));
  EXPECT_THAT(windows[1].target, ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(windows[2].context, ElementsAre(6, 7, 8));
  EXPECT_THAT(windows[2].target, ElementsAre(9, 10));
}

TEST(RollingWindows, ScoreEveryTokenOnceForAnyLength) {
  for (std::int64_t size = 0; size <= 40; ++size) {
    std::vector<TokenId> ids(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) ids[i] = static_cast<TokenId>(100 + i);
    for (std::int64_t max_length = 2; max_length <= 12; ++max_length) {
      std::vector<TokenId> scored;
      for (const EncodedRequest& window : rolling_windows(ids, 7, max_length)) {
        EXPECT_EQ(window.input_tokens(), std::min(max_length, size));
        EXPECT_EQ(window.context.back(), scored.empty() ? 7 : scored.back())
            << "the context ends where the target begins";
        scored.insert(scored.end(), window.target.begin(), window.target.end());
      }
      EXPECT_EQ(scored, ids);
    }
  }
}

}  // namespace
}  // namespace attar::eval
