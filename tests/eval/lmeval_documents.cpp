// Every answer of the model on the harness's documents. Prints one line a task for the row in
// tests/bench/MEASURED.md.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/eval/lmeval_answers.h"
#include "tests/eval/lmeval_compare.h"
#include "tests/eval/reference_model.h"

namespace attar::eval {
namespace {

class LmevalDocuments : public ::testing::TestWithParam<const char*> {};

TEST_P(LmevalDocuments, GetTheHarnessAnswers) {
  NEEDS_SHARED(testing::data_folder());
  NEEDS_SHARED(testing::answers_folder());
  NEEDS_SHARED(testing::reference_folder());
  static const auto model = testing::open_reference_model();
  const auto answers = testing::read_documents(GetParam());
  std::vector<TaskResult> results;
  for (const Task& task : testing::open_for(GetParam(), answers)) {
    results.push_back(run_task(task, *model, {.bootstrap_draws = 1000}));
  }
  const auto agreement = testing::compare_answers(GetParam(), results, answers);
  for (const std::string& difference : agreement.differences) ADD_FAILURE() << difference;
  EXPECT_EQ(agreement.documents, static_cast<int>(answers.size()));
  std::printf("| %s | %d | %d | %.1e | %.2f | %zu |\n", agreement.task.c_str(), agreement.documents,
              agreement.requests, agreement.largest_difference,
              agreement.largest_share_of_tolerance, agreement.differences.size());
  std::fflush(stdout);
}

INSTANTIATE_TEST_SUITE_P(Tasks, LmevalDocuments,
                         ::testing::Values("arc_easy", "arc_challenge", "hellaswag", "piqa",
                                           "openbookqa", "winogrande", "boolq", "lambada_openai",
                                           "mmlu", "gsm8k", "gsm8k_more", "wikitext",
                                           "wikitext_maxlen2048"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace attar::eval
