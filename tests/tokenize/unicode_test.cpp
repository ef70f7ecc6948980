#include "compress/tokenize/unicode.h"

#include <gtest/gtest.h>

namespace attar::tokenize {
namespace {

const std::string kBad = "\xEF\xBF\xBD";

// Table 3-8 of Unicode 15: U+FFFD for each maximal subpart.
TEST(ToWellFormed, ReplacesEachMaximalIllFormedPart) {
  EXPECT_EQ(to_well_formed("a\xF1\x80\x80\xE1\x80\xC2"
                           "b\x80"
                           "c\x80\xBF"
                           "d"),
            "a" + kBad + kBad + kBad + "b" + kBad + "c" + kBad + kBad + "d");
}

// Tables 3-9 and 3-10: overlong forms, surrogates and what lies beyond U+10FFFF have no good start.
TEST(ToWellFormed, TakesOverlongFormsAndSurrogatesByteByByte) {
  EXPECT_EQ(to_well_formed("\xC0\xAF"), kBad + kBad);
  EXPECT_EQ(to_well_formed("\xED\xA0\x80"), kBad + kBad + kBad);
  EXPECT_EQ(to_well_formed("\xF4\x90\x80\x80"), kBad + kBad + kBad + kBad);
  EXPECT_EQ(to_well_formed("\xE2\x82"), kBad);
}

TEST(ToWellFormed, LeavesEveryCharacterAsItIs) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_character(text, c);
    ASSERT_EQ(well_formed_prefix(text), text.size()) << std::hex << static_cast<unsigned>(c);
    ASSERT_EQ(first_character(text), c);
    ASSERT_EQ(character_length(text[0]), text.size());
  }
}

TEST(ToNormalForm, MatchesHandWorkedForms) {
  const std::string text = "\xE1\xBA\x9B\xCC\xA3";  // U+1E9B U+0323, figure 6 of UAX 15
  EXPECT_EQ(to_normal_form(text, NormalForm::nfc), text);
  EXPECT_EQ(to_normal_form(text, NormalForm::nfd), "\xC5\xBF\xCC\xA3\xCC\x87");
  EXPECT_EQ(to_normal_form(text, NormalForm::nfkc), "\xE1\xB9\xA9");
  EXPECT_EQ(to_normal_form(text, NormalForm::nfkd), "s\xCC\xA3\xCC\x87");
}

// U+0898 came with Unicode 14: `tokenizers` takes it for a starter, so U+0316 stays behind it.
TEST(ToNormalForm, MovesNothingAcrossAYoungMark) {
  const std::string text = "a\xCC\x81\xE0\xA2\x98\xCC\x96";
  EXPECT_EQ(to_normal_form(text, NormalForm::nfd), text);
}

TEST(ToLower, KnowsTheOneCharacterThatBecomesTwo) {
  EXPECT_EQ(to_lower("A\xC4\xB0\xC3\x84\xCE\xA3"), "ai\xCC\x87\xC3\xA4\xCF\x83");
}

TEST(Classes, FollowTheirProperties) {
  EXPECT_TRUE(is_whitespace(0x85) && is_whitespace(0x3000) && !is_whitespace(0x180E));
  EXPECT_TRUE(is_number('7') && is_number(0xBD) && is_number(0x2167) && !is_number(0x4E00));
  EXPECT_TRUE(is_punctuation('$') && is_punctuation(0x2019) && !is_punctuation(0x20AC));
  EXPECT_TRUE(is_word('_') && is_word(0x301) && is_word(0x200D) && !is_word('-'));
}

}  // namespace
}  // namespace attar::tokenize
