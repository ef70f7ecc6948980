// Goldens made with CPython 3.11.7: random.Random, str.strip, len, re.split.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "eval/few_shot.h"
#include "eval/python_random.h"
#include "eval/python_text.h"
#include "eval/wikitext.h"

namespace attar::eval {
namespace {

using ::testing::ElementsAre;

TEST(PythonRandom, DrawsTheBitsOfCPython) {
  PythonRandom random(1234);
  EXPECT_EQ(random.random_bits(32), 4150886329U);
  EXPECT_EQ(random.next(), 3342196574U);
  EXPECT_EQ(random.next(), 1892932127U);
  EXPECT_EQ(random.next(), 501869158U);
  EXPECT_EQ(random.random_bits(5), 0U);
  EXPECT_EQ(random.random_bits(40), 1001116691269U);
  EXPECT_EQ(random.random_bits(64), 17326454776888161602U);
  EXPECT_EQ(random.random(), 0.8070024071799783);
  EXPECT_EQ(random.random(), 0.034926166173543605);
}

TEST(PythonRandom, TakesASeedOfTwoWordsAndRefillsItsState) {
  PythonRandom wide((1ULL << 63) + 12345678901ULL);
  EXPECT_EQ(wide.next(), 1898424762U);
  EXPECT_EQ(wide.random(), 0.16113139699697843);
  PythonRandom random(7);
  for (int i = 0; i < 999; ++i) random.next();
  EXPECT_EQ(random.next(), 2798318755U);
}

TEST(PythonRandom, SamplesOnBothSidesOfTheBorderBetweenPoolAndSet) {
  PythonRandom random(1234);
  EXPECT_THAT(random.sample(7473, 5), ElementsAre(6374, 3610, 957, 61, 742));
  EXPECT_THAT(random.sample(7473, 5), ElementsAre(7462, 6610, 4769, 286, 5501));
  EXPECT_THAT(random.sample(21, 3), ElementsAre(2, 3, 11));
  EXPECT_THAT(random.sample(22, 3), ElementsAre(7, 0, 11));
  EXPECT_THAT(random.sample(85, 6), ElementsAre(82, 79, 61, 78, 59, 19));
  EXPECT_THAT(random.sample(86, 6), ElementsAre(11, 23, 14, 1, 64, 62));
  EXPECT_THAT(random.sample(6, 6), ElementsAre(1, 0, 3, 4, 2, 5));
  EXPECT_THROW(random.sample(3, 4), UsageError);
  // Seed 5 tells the two ways apart on either side of both borders.
  EXPECT_THAT(PythonRandom(5).sample(21, 5), ElementsAre(19, 8, 11, 16, 0));
  EXPECT_THAT(PythonRandom(5).sample(22, 5), ElementsAre(19, 8, 11, 20, 16));
  EXPECT_THAT(PythonRandom(5).sample(85, 6), ElementsAre(79, 32, 45, 67, 3, 59));
  EXPECT_THAT(PythonRandom(5).sample(86, 6), ElementsAre(79, 32, 45, 83, 67, 3));
}

TEST(PythonRandom, ChoosesWithReplacement) {
  PythonRandom random(0);
  for (const std::int64_t expected : {4351, 3905, 2167, 1334, 2634, 2086}) {
    EXPECT_EQ(random.choice(5153), expected);
  }
  EXPECT_EQ(random.next(), 3366389305U);
}

TEST(FewShotSampler, LeavesTheDocumentOutOnlyWhereOneMoreIsDrawn) {
  const auto first = [](std::int64_t row) { return row == 6374; };
  FewShotSampler plain(7473, 4, false, 1234);
  EXPECT_THAT(plain.next(first), ElementsAre(6374, 3610, 957, 61));
  FewShotSampler one_more(7473, 4, true, 1234);
  EXPECT_THAT(one_more.next(first), ElementsAre(3610, 957, 61, 742));
  EXPECT_THROW(FewShotSampler(4, 4, true, 1234), UsageError);
  EXPECT_THAT(FewShotSampler(0, 0, true, 1234).next(first), ElementsAre());
}

TEST(PythonText, KnowsEveryWhitespaceCharacterOfPython) {
  std::vector<char32_t> spaces;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (is_space(c)) spaces.push_back(c);
  }
  EXPECT_THAT(spaces,
              ElementsAre(0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F, 0x20, 0x85, 0xA0,
                          0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007,
                          0x2008, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000));
}

TEST(PythonText, StripsAndCountsByCharacters) {
  EXPECT_EQ(strip(" \t\xC2\xA0x y\xE3\x80\x80\n"), "x y");
  EXPECT_EQ(rstrip(" x\xE2\x80\x89 "), " x");
  EXPECT_EQ(strip(" \xE2\x80\x89"), "");
  EXPECT_EQ(rstrip("a\xE2\x80\x8B"), "a\xE2\x80\x8B") << "U+200B is no whitespace";
  EXPECT_EQ(count_characters("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), 4);
  EXPECT_EQ(count_characters("\xFF\xC3"), 2) << "ill-formed bytes count one each";
  EXPECT_EQ(rstrip("a\x85\xA0"), "a\x85\xA0") << "ill-formed bytes are no whitespace";
}

TEST(PythonText, CountsWordsAsSplitDoes) {
  EXPECT_EQ(count_words(""), 1);
  EXPECT_EQ(count_words("a"), 1);
  EXPECT_EQ(count_words(" a  b\n"), 4);
  EXPECT_EQ(count_words("a\xC2\xA0\xE2\x80\x83"
                        "b"),
            2);
}

TEST(PythonText, ReplacesFromTheLeftAndOnce) {
  EXPECT_EQ(replace_all("= = = =", "= =", "=="), "== ==");
  EXPECT_EQ(replace_all("aaa", "aa", "a"), "aa");
}

TEST(Wikitext, UndoesBracketsQuotesAndSeparators) {
  EXPECT_EQ(detokenize("a ( b ( c ) d ) e"), "a (b ( c) d ) e");
  EXPECT_EQ(detokenize("x ( open"), "x ( open");
  EXPECT_EQ(detokenize("\" a \" b \" c \""), "\"a\" b \"c\"");
  EXPECT_EQ(detokenize("1 @,@ 000 @.@ 5 well @-@ known"), "1,000.5 well-known");
  EXPECT_EQ(detokenize("/' 3/"), "/'[0-9]/");
  EXPECT_EQ(detokenize("20 \xC2\xB0 C N x"),
            "20\xC2\xB0"
            "C 1 x");
  EXPECT_EQ(detokenize("dogs ' tail"), "dogs' tail");
}

TEST(Wikitext, CutsAtHeadingsOfTheFirstLevelAndAtWhatLooksLikeThem) {
  EXPECT_THAT(cut_pages("\n = A = \n x\n = = B = = \n k = 1 and\n = c = d = \n"),
              ElementsAre(" = A = \n x\n = = B = = \n k = 1 and", " = c = d = \n"));
  EXPECT_THAT(cut_pages(" = A = \n"), ElementsAre(" = A = \n"));
}

}  // namespace
}  // namespace attar::eval
