#include "eval/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "eval/comparison.h"
#include "eval/groups.h"
#include "eval/table.h"

namespace attar::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A task whose documents were right or wrong as told.
TaskResult answered(const std::string& name, std::vector<std::string> groups,
                    const std::vector<double>& right) {
  TaskResult result;
  result.task.name = name;
  result.task.alias = name;
  result.task.groups = std::move(groups);
  result.task.version = "1.0";
  result.task.metrics = {{.name = "acc"}};
  result.task.documents_in_source = 100;
  for (std::size_t i = 0; i < right.size(); ++i) {
    Sample sample;
    sample.document = static_cast<std::int64_t>(i);
    sample.values["acc,none"] = right[i];
    result.samples.push_back(sample);
  }
  result.metrics = aggregate(result.task, result.samples);
  return result;
}

std::vector<TaskResult> some_results() {
  return {answered("arc_easy", {}, {1, 0, 1, 1}), answered("mmlu_b", {"mmlu", "mmlu_stem"}, {1, 0}),
          answered("mmlu_a", {"mmlu", "mmlu_social_sciences"}, {1, 1, 0, 0, 0, 0}),
          answered("mmlu_c", {"mmlu", "mmlu_stem"}, {0, 1, 0})};
}

TEST(ResultLines, PutGroupsAboveTheirMembers) {
  const auto results = some_results();
  std::vector<std::string> aliases;
  for (const ResultLine& line : result_lines(results)) aliases.push_back(line.alias);
  EXPECT_THAT(aliases, ElementsAre("arc_easy", "mmlu", " - social sciences", "  - mmlu_a",
                                   " - stem", "  - mmlu_b", "  - mmlu_c"));
}

TEST(ResultLines, ScoreAGroupOverAllItsDocuments) {
  const auto results = some_results();
  const auto lines = result_lines(results);
  EXPECT_THAT(lines[1].children, ElementsAre("mmlu_social_sciences", "mmlu_stem"));
  EXPECT_DOUBLE_EQ(lines[1].metrics[0].value, 4.0 / 11);
  EXPECT_DOUBLE_EQ(lines[4].metrics[0].value, 2.0 / 5);
  // Errors squared: b 1/4, c 1/9 -> (1*2/4 + 2*3/9) / (5 - 2) / 5.
  EXPECT_NEAR(lines[4].metrics[0].error.value(), std::sqrt((0.5 + 2.0 / 3) / 15), 1e-12);
}

TEST(ResultLines, LeaveTheErrorOutWhereAMemberHasNone) {
  auto results = some_results();
  results[1] = answered("mmlu_b", {"mmlu", "mmlu_stem"}, {1});
  EXPECT_FALSE(result_lines(results)[1].metrics[0].error.has_value());
}

TEST(ResultsJson, HasTheHarnessKeys) {
  const auto json = results_json(some_results(), {.model = "m", .limit = 4});
  EXPECT_EQ(json.at("results").at("arc_easy").at("acc,none"), 0.75);
  EXPECT_EQ(json.at("results").at("arc_easy").at("acc_stderr,none"), 0.25);
  EXPECT_EQ(json.at("results").at("mmlu_a").at("alias"), "  - mmlu_a");
  EXPECT_EQ(json.at("groups").size(), 3U);
  EXPECT_EQ(json.at("group_subtasks").at("mmlu_stem"),
            (nlohmann::ordered_json{"mmlu_b", "mmlu_c"}));
  EXPECT_EQ(json.at("group_subtasks").at("arc_easy").size(), 0U);
  EXPECT_EQ(json.at("versions").at("arc_easy"), 1.0);
  EXPECT_EQ(json.at("n-shot").at("mmlu_c"), 0);
  EXPECT_EQ(json.at("higher_is_better").at("arc_easy").at("acc"), true);
  EXPECT_EQ(json.at("n-samples").at("mmlu_b").at("original"), 100);
  EXPECT_EQ(json.at("n-samples").at("mmlu_b").at("effective"), 2);
  EXPECT_EQ(json.at("configs").at("arc_easy").at("metric_list").at(0).at("aggregation"), "mean");
  EXPECT_EQ(json.at("config").at("limit"), 4);
  EXPECT_FALSE(json.contains("comparison"));
}

TEST(ResultsJson, WritesAnErrorThatIsMissingAsText) {
  const auto json = results_json({answered("arc_easy", {}, {1})}, {.model = "m"});
  EXPECT_EQ(json.at("results").at("arc_easy").at("acc_stderr,none"), "N/A");
  EXPECT_FALSE(json.contains("groups"));
}

TEST(ResultsJson, ComparesWithATeacherTaskByTaskAndGroupByGroup) {
  auto teachers = some_results();
  teachers[0] = answered("arc_easy", {}, {1, 1, 0, 1});
  teachers[3] = answered("mmlu_c", {"mmlu", "mmlu_stem"}, {1, 1, 1});
  const auto json = results_json(some_results(), {.model = "m"}, teachers);
  const auto& easy = json.at("comparison").at("arc_easy").at("acc,none");
  EXPECT_EQ(easy.at("difference"), 0);
  EXPECT_EQ(easy.at("lost"), 1);
  EXPECT_EQ(easy.at("gained"), 1);
  EXPECT_EQ(json.at("comparison").at("mmlu").at("acc,none").at("lost"), 2);
  EXPECT_DOUBLE_EQ(json.at("comparison").at("mmlu_stem").at("acc,none").at("difference"), -0.4);
}

TEST(ResultsJson, RefusesATeacherThatAnsweredOtherDocuments) {
  auto teachers = some_results();
  teachers[0].samples[1].document = 17;
  EXPECT_THROW(results_json(some_results(), {.model = "m"}, teachers), UsageError);
  teachers = some_results();
  teachers.pop_back();
  EXPECT_THROW(results_json(some_results(), {.model = "m"}, teachers), UsageError);
}

TaskResult pages(double nats_a_word) {
  TaskResult result;
  result.task.name = result.task.alias = "wikitext";
  result.task.version = "2.0";
  result.task.kind = TaskKind::kRolling;
  result.task.metrics = {{.name = "word_perplexity", .higher_is_better = false}};
  for (int i = 0; i < 6; ++i) {
    Sample sample;
    sample.document = i;
    sample.words = 10 + i;
    sample.values["word_perplexity,none"] = -nats_a_word * static_cast<double>(sample.words);
    result.samples.push_back(sample);
  }
  result.metrics = aggregate(result.task, result.samples);
  return result;
}

// Every page is worse by the same factor, so the interval has no width but rounding.
TEST(Compare, TakesPerplexitiesPageByPage) {
  const auto comparison = compare(pages(2), pages(2.5)).at(0);
  const double expected = std::exp(2.5) - std::exp(2.0);
  EXPECT_NEAR(comparison.difference.value, expected, 1e-12);
  EXPECT_NEAR(comparison.difference.low, expected, 1e-12);
  EXPECT_NEAR(comparison.difference.high, expected, 1e-12);
  EXPECT_FALSE(comparison.flips.has_value());
}

TEST(ResultTable, HasTheHarnessColumnsAndThoseOfTheTeacher) {
  EXPECT_EQ(result_table({answered("arc_easy", {}, {1, 0, 1, 1}), pages(2)}),
            "|Tasks   |Version|Filter|n-shot|Metric         |   | Value|   |Stderr|\n"
            "|--------|------:|------|-----:|---------------|---|-----:|---|-----:|\n"
            "|arc_easy|    1.0|none  |     0|acc            |\u2191  |0.7500|\u00b1  |0.2500|\n"
            "|wikitext|    2.0|none  |     0|word_perplexity|\u2193  |7.3891|\u00b1  |   N/A|\n");
  const std::string table = result_table({answered("arc_easy", {}, {1, 0, 1, 1})},
                                         {answered("arc_easy", {}, {1, 1, 1, 1})});
  EXPECT_THAT(table, HasSubstr("\u0394 teacher"));
  EXPECT_THAT(table, HasSubstr("-0.2500|[-0.7400, +0.2400]|-1 +0|"));
}

TEST(SamplesJson, KeepsWhatWasSaidAboutEveryDocument) {
  const auto rows = samples_json(answered("arc_easy", {}, {1, 0}));
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[1].at("doc_id"), 1);
  EXPECT_EQ(rows[1].at("values").at("acc,none"), 0);
}

}  // namespace
}  // namespace attar::eval
