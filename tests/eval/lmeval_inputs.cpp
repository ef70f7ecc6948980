// What the model is asked, down to the token ids, against the harness; no model is run.
#include <gtest/gtest.h>

#include "tests/eval/lmeval_answers.h"
#include "tests/eval/lmeval_compare.h"
#include "tests/eval/reference_model.h"

namespace attar::eval {
namespace {

class LmevalInputs : public ::testing::TestWithParam<const char*> {};

TEST_P(LmevalInputs, HaveTheHarnessTokens) {
  NEEDS_SHARED(testing::data_folder());
  NEEDS_SHARED(testing::answers_folder());
  NEEDS_SHARED(testing::reference_folder());
  static const auto tokenizer = load_tokenizer(testing::reference_folder());
  const auto answers = testing::read_documents(GetParam());
  const auto tasks = testing::open_for(GetParam(), answers);
  const auto agreement = testing::compare_inputs(GetParam(), tasks, answers, *tokenizer);
  for (const std::string& difference : agreement.differences) ADD_FAILURE() << difference;
  EXPECT_EQ(agreement.documents, static_cast<int>(answers.size()));
}

INSTANTIATE_TEST_SUITE_P(Tasks, LmevalInputs,
                         ::testing::Values("arc_easy", "arc_challenge", "hellaswag", "piqa",
                                           "openbookqa", "winogrande", "boolq", "lambada_openai",
                                           "mmlu", "gsm8k", "gsm8k_more", "wikitext",
                                           "wikitext_maxlen2048"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace attar::eval
