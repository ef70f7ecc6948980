#include "compress/tokenize/pattern.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"

namespace attar::tokenize {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> matches(std::string_view expression, std::string_view text) {
  std::vector<std::string> found;
  for (const Span& span : Pattern(expression, "test").find_all(text)) {
    found.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return found;
}

TEST(Pattern, FindsGpt2Words) {
  EXPECT_THAT(
      matches(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
              "It's  25 \xC3\xA9t\xC3\xA9s!\n"),
      ElementsAre("It", "'s", " ", " 25", " \xC3\xA9t\xC3\xA9s", "!", "\n"));
}

// U+180E is \s for PCRE2 and not for Oniguruma; U+0085 and U+3000 are for both.
TEST(Pattern, TakesWhitespaceFromUnicode) {
  EXPECT_THAT(matches(R"(\s)", "\xE1\xA0\x8E\xC2\x85\xE3\x80\x80"),
              ElementsAre("\xC2\x85", "\xE3\x80\x80"));
  EXPECT_THAT(matches(R"([^\s])", "\xE1\xA0\x8E "), ElementsAre("\xE1\xA0\x8E"));
}

TEST(Pattern, TakesHexadecimalDigitsAndLinesAsOniguruma) {
  EXPECT_THAT(matches(R"(\h+)", "x1F g\t"), ElementsAre("1F"));
  EXPECT_THAT(matches(R"(^a$)", "a\na"), ElementsAre("a", "a"));
}

TEST(Pattern, FindsEmptyMatchesOnceEach) {
  const auto spans = Pattern("b*", "test").find_all("ab\xC3\xA9");
  ASSERT_EQ(spans.size(), 3u);  // before a, "b", at the end; not again right behind "b"
  EXPECT_EQ(spans[1].begin, 1u);
  EXPECT_EQ(spans[1].end, 2u);
  EXPECT_EQ(spans[2].begin, 4u);
}

TEST(Pattern, LiteralTextHasNoSpecialSigns) {
  const std::string text = "a.b[c]\\d$^(";
  const auto spans = Pattern::literal(text, "test").find_all("axb" + text);
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].begin, 3u);
}

class Refused : public testing::TestWithParam<const char*> {};

TEST_P(Refused, NamesThePlace) {
  try {
    Pattern(GetParam(), "tokenizer.json: pre_tokenizer.pattern.Regex");
    FAIL() << "compiled";
  } catch (const BadInput& error) {
    EXPECT_THAT(error.what(), HasSubstr("tokenizer.json: pre_tokenizer.pattern.Regex"));
  }
}

INSTANTIATE_TEST_SUITE_P(Pattern, Refused,
                         testing::Values("(", "[a", "\\", "\\p{Nonsense}", R"(\bword)", "a{1,3}+",
                                         "[a&&b]", "[a[b]]", "(?m:.)", "(?ix) a", R"([\W])",
                                         "[[:alpha"));

TEST(Pattern, LongRunsDoNotExhaustTheStack) {
  const std::string text(1 << 20, 'a');
  EXPECT_EQ(matches("(?:a|b)+", text).at(0).size(), text.size());
}

}  // namespace
}  // namespace attar::tokenize
