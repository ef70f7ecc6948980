#include "eval/answer_filters.h"

#include <gtest/gtest.h>

#include "tests/eval/lmeval_answers.h"

namespace attar::eval {
namespace {

TEST(AnswerFilters, ExtractAndCompareAsTheHarnessDoesOnEveryCase) {
  NEEDS_SHARED(testing::answers_folder());
  const auto golds = testing::read_answer("model_free/gsm8k_filter_golds.json");
  const auto cases = testing::read_answer_lines("model_free/gsm8k_filter_cases.jsonl");
  EXPECT_EQ(cases.size(), 106U);
  for (const auto& row : cases) {
    const std::string text = row.at("text");
    const auto check = [&](const char* filter, const std::string& extracted) {
      EXPECT_EQ(extracted, row.at(filter).at("extracted")) << filter << " of: " << text;
      for (std::size_t i = 0; i < golds.size(); ++i) {
        EXPECT_EQ(exact_match(extracted, golds[i].get<std::string>()) ? 1.0 : 0.0,
                  row.at(filter).at("exact_match")[i].get<double>())
            << filter << " of: " << text << " against " << golds[i];
      }
    };
    check("strict-match", extract_strict(text));
    check("flexible-extract", extract_flexible(text));
  }
}

TEST(AnswerFilters, TakeTheFirstMarkerOrTheLastNumber) {
  EXPECT_EQ(extract_strict("##### 7 #### 8"), "7");
  EXPECT_EQ(extract_strict("#### x\n#### -1,2"), "-1,2");
  EXPECT_EQ(extract_strict(""), kNoAnswer);
  EXPECT_EQ(extract_flexible("it is 7 - or --3"), "-3");
  EXPECT_EQ(extract_flexible("7 apples."), "7");
  EXPECT_EQ(extract_flexible("7 apples ..."), "...");
  EXPECT_EQ(extract_flexible("$ . -"), kNoAnswer);
  EXPECT_EQ(extract_flexible("\xD9\xA3"), kNoAnswer) << "an Arabic digit is no [0-9]";
}

TEST(AnswerFilters, CompareAsStrings) {
  EXPECT_TRUE(exact_match("$1,250.", "so\n#### 1250"));
  EXPECT_FALSE(exact_match("18.0", "#### 18"));
  EXPECT_TRUE(exact_match("x #### 5", "a #### b #### 5")) << "up to the last marker";
  EXPECT_TRUE(exact_match("ABC", "abc"));
}

}  // namespace
}  // namespace attar::eval
