#include "eval/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "compress/core/errors.h"
#include "eval/perplexity.h"
#include "tests/eval/fake_model.h"

namespace attar::eval {
namespace {

using testing::ByteTokenizer;
using ::testing::ElementsAre;
using testing::FakeModel;

Task choice_task() {
  Task task;
  task.name = "toy";
  task.kind = TaskKind::kChoice;
  task.metrics = {{.name = "acc"}, {.name = "acc_norm"}};
  // Every token costs 1 nat: the shortest wins by likelihood, all are equal a byte, and a character
  // of three bytes is dear a character.
  Document document;
  document.contexts = {"Q"};
  document.targets = {" aaaa", " bb", " \xE2\x82\xAC"};
  document.gold = 1;
  document.choice_characters = {4, 2, 1};
  document.choice_bytes = {4, 2, 3};
  task.documents = {document, document};
  task.documents[1].index = 1;
  task.documents[1].gold = 0;
  return task;
}

FakeModel one_nat_a_token() {
  return FakeModel([](std::span<const TokenId>, TokenId) { return -1.0; });
}

TEST(RunTask, ChoosesByLikelihoodByCharactersAndByBytes) {
  FakeModel model = one_nat_a_token();
  const TaskResult result = run_task(choice_task(), model);
  const Sample& sample = result.samples[0];
  EXPECT_EQ(sample.requests[0].log_likelihood, -5);
  EXPECT_EQ(sample.requests[2].target_tokens, 4);
  EXPECT_EQ(sample.chosen, 1);        // -3 against -5, -4
  EXPECT_EQ(sample.chosen_norm, 0);   // -5/4 against -3/2, -4/1
  EXPECT_EQ(sample.chosen_bytes, 0);  // -5/4 against -3/2, -4/3
  EXPECT_EQ(result.metrics[0].value, 0.5);
  EXPECT_EQ(result.metrics[1].value, 0.5);
  EXPECT_NEAR(result.metrics[0].error.value(), 0.5, 1e-15);  // sqrt(1/2) / sqrt(2)
  EXPECT_EQ(model.calls, 2) << "choices of one question are asked together";
}

TEST(RunTask, MayChooseOtherwiseByBytesThanByCharacters) {
  Task task = choice_task();
  // -5/4 and -4/1 a character, but -5/4 and -4/5 a byte.
  task.documents[0].targets = {" aaaa", " \xE2\x82\xAC"};
  task.documents[0].choice_characters = {4, 1};
  task.documents[0].choice_bytes = {4, 5};
  task.documents.pop_back();
  FakeModel model = one_nat_a_token();
  const Sample sample = run_task(task, model).samples[0];
  EXPECT_EQ(sample.chosen_norm, 0);
  EXPECT_EQ(sample.chosen_bytes, 1);
}

TEST(RunTask, GivesTiesToTheFirst) {
  Task task = choice_task();
  task.documents[0].targets = {" aa", " bb", " cc"};
  FakeModel model = one_nat_a_token();
  EXPECT_EQ(run_task(task, model).samples[0].chosen, 0);
}

// What was asked together or one after the other does not show in the answers.
TEST(RunTask, GivesTheSameWhateverTheOrderAndTheGrouping) {
  Task task = choice_task();
  task.documents.clear();
  for (int i = 0; i < 30; ++i) {
    Document document = choice_task().documents[0];
    document.index = i;
    document.contexts = {std::string("shared start ") + std::to_string(i * 7919 % 31)};
    if (i % 3 == 0) document.contexts = {"x" + std::to_string(i), "y", "x" + std::to_string(i)};
    task.documents.push_back(document);
  }
  FakeModel model(testing::scrambled);
  const TaskResult together = run_task(task, model);
  EXPECT_TRUE(std::is_sorted(model.prefixes.begin(), model.prefixes.end()))
      << "shared beginnings follow one another";
  EXPECT_EQ(model.calls, 20 + 2 * 10);
  for (std::size_t i = 0; i < task.documents.size(); ++i) {
    Task alone = task;
    alone.documents = {task.documents[i]};
    const TaskResult single = run_task(alone, model);
    EXPECT_EQ(together.samples[i].document, static_cast<std::int64_t>(i));
    for (std::size_t r = 0; r < 3; ++r) {
      const ScoredRequest& request = together.samples[i].requests[r];
      EXPECT_EQ(request.log_likelihood, single.samples[0].requests[r].log_likelihood);
      const std::string text = task.documents[i].context(r) + task.documents[i].targets[r];
      std::vector<TokenId> before;
      double expected = 0;
      for (const char c : text) {
        const auto token = static_cast<TokenId>(static_cast<unsigned char>(c));
        if (before.size() >= task.documents[i].context(r).size()) {
          expected += testing::scrambled(before, token);
        }
        before.push_back(token);
      }
      EXPECT_EQ(request.log_likelihood, expected);
    }
  }
}

TEST(RunTask, RefusesANumberThatIsNotFinite) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    FakeModel model([bad](std::span<const TokenId>, TokenId t) { return t == 'b' ? bad : -1.0; });
    EXPECT_THROW(run_task(choice_task(), model), NumericRefusal);
  }
}

TEST(RunTask, CutsLongContextsFromTheLeft) {
  Task task = choice_task();
  task.documents[0].contexts = {std::string(100, 'x') + "tail"};
  FakeModel model([](std::span<const TokenId>, TokenId) { return -1.0; }, 8);
  run_task(task, model);
  EXPECT_EQ(model.longest_input, 8);
}

TEST(RunTask, ReportsEveryDocumentAndCanBeStopped) {
  FakeModel model = one_nat_a_token();
  std::vector<std::int64_t> done;
  run_task(choice_task(), model, {.progress = [&](const Progress& p) { done.push_back(p.done); }});
  EXPECT_THAT(done, ElementsAre(1, 2));
  EXPECT_THROW(
      run_task(choice_task(), model, {.progress = [](const Progress&) { throw Stopped("stop"); }}),
      Stopped);
}

TEST(RunTask, ScoresALastWordByGreedinessAndByDocument) {
  Task task = choice_task();
  task.kind = TaskKind::kLastWord;
  task.metrics = {{.name = "perplexity", .higher_is_better = false}, {.name = "acc"}};
  for (Document& document : task.documents) document.targets = {document.index == 0 ? " b" : " a"};
  FakeModel model([](std::span<const TokenId>, TokenId t) { return t == 'a' ? -2.0 : -0.5; });
  const TaskResult result = run_task(task, model, {.bootstrap_draws = 1000});
  EXPECT_DOUBLE_EQ(result.metrics[0].value, std::exp((1.0 + 2.5) / 2));
  EXPECT_EQ(result.metrics[1].value, 0.5);
}

Task rolling_task() {
  Task task;
  task.name = "pages";
  task.kind = TaskKind::kRolling;
  for (const char* name : {"word_perplexity", "byte_perplexity", "bits_per_byte"}) {
    task.metrics.push_back({.name = name, .higher_is_better = false});
  }
  for (const char* text : {"abcdefghij", "xyz"}) {
    Document document;
    document.contexts = {text};
    document.targets = {""};
    document.words = 2;
    document.bytes = 8;
    task.documents.push_back(document);
  }
  return task;
}

TEST(RunTask, CountsRollingLikelihoodByTheWordsAndBytesOfTheOriginal) {
  FakeModel model = one_nat_a_token();
  const TaskResult result = run_task(rolling_task(), model);
  EXPECT_DOUBLE_EQ(result.metrics[0].value, std::exp(13.0 / 4));
  EXPECT_DOUBLE_EQ(result.metrics[1].value, std::exp(13.0 / 16));
  EXPECT_DOUBLE_EQ(result.metrics[2].value, 13.0 / 16 / std::log(2.0));
  EXPECT_FALSE(result.metrics[0].error.has_value());
  EXPECT_EQ(model.prefixes[0], std::vector<TokenId>{ByteTokenizer::kBos});
}

TEST(RunTask, RollsInTheSmallerOfTheTwoLengths) {
  Task task = rolling_task();
  task.max_length = 4;
  FakeModel model = one_nat_a_token();
  const TaskResult result = run_task(task, model);
  ASSERT_EQ(result.samples[0].windows.size(), 3U);
  EXPECT_EQ(result.samples[0].windows[2].input_tokens, 4);
  EXPECT_EQ(result.samples[0].windows[2].scored_tokens, 2);
  FakeModel small([](std::span<const TokenId>, TokenId) { return -1.0; }, 3);
  EXPECT_EQ(run_task(task, small).samples[0].windows.size(), 4U);
}

Task word_problem() {
  Task task;
  task.name = "gsm8k";
  task.kind = TaskKind::kGeneration;
  task.metrics = {{.name = "exact_match", .filter = "strict-match"},
                  {.name = "exact_match", .filter = "flexible-extract"}};
  task.stop = {"Question:", "</s>"};
  task.max_new_tokens = 40;
  Document document;
  document.contexts = {"Question: 1+1?\nAnswer:"};
  document.targets = {""};
  document.answer = "1+1=2\n#### 2";
  task.documents = {document};
  return task;
}

Sample answer(const std::string& says, bool then_eos = false) {
  FakeModel model = one_nat_a_token();
  for (const char c : says) model.script.push_back(static_cast<unsigned char>(c));
  if (then_eos) model.script.push_back(ByteTokenizer::kEos);
  return run_task(word_problem(), model).samples[0];
}

TEST(RunTask, StopsAtAStopStringAndCutsTheTextThere) {
  const Sample sample = answer(" two #### 2\n\nQuestion: more");
  EXPECT_EQ(sample.raw_text, " two #### 2\n\nQuestion:");
  EXPECT_EQ(sample.text, " two #### 2\n\n");
  EXPECT_EQ(sample.extracted.at("strict-match"), "2");
  EXPECT_EQ(sample.values.at("exact_match,strict-match"), 1);
}

TEST(RunTask, StopsAtTheLastAllowedToken) {
  EXPECT_EQ(answer(std::string(60, '7')).ids.size(), 40U);
}

TEST(RunTask, ReadsAnAnswerThatIsOnlyTheEndOfTextAsEmpty) {
  const Sample sample = answer("", true);
  EXPECT_THAT(sample.ids, ElementsAre(ByteTokenizer::kEos));
  EXPECT_EQ(sample.text, "");
  EXPECT_EQ(sample.extracted.at("flexible-extract"), "[invalid]");
  EXPECT_EQ(sample.values.at("exact_match,flexible-extract"), 0);
}

TEST(RunTask, SeesAStopStringThatOnlyItsLastTokensHold) {
  // The text of EOS as ordinary bytes stops as well: it is the last of the stop strings.
  EXPECT_EQ(answer("5<eos>6").text, "5");
}

TEST(RunTask, LeavesRoomForTheAnswerByCuttingThePrompt) {
  FakeModel model([](std::span<const TokenId>, TokenId) { return -1.0; }, 50);
  model.script = {'1'};
  run_task(word_problem(), model);
  EXPECT_EQ(model.prefixes[0].size(), 10U);
  FakeModel tiny([](std::span<const TokenId>, TokenId) { return -1.0; }, 40);
  EXPECT_THROW(run_task(word_problem(), tiny), DoesNotFit);
}

TEST(Perplexity, IsTheMeanOfWindowsThatDoNotOverlapWithoutTheirFirstToken) {
  FakeModel model([](std::span<const TokenId> before, TokenId token) {
    EXPECT_LT(before.size(), 4U);
    return token == 'a' ? -1.0 : -3.0;
  });
  const PerplexityResult result = measure_perplexity("baaaabbbxx", model, {.window = 4});
  EXPECT_THAT(result.window_losses, ElementsAre(1.0, 3.0));
  EXPECT_DOUBLE_EQ(result.perplexity.value, std::exp((1.0 + 3.0) / 2));
  EXPECT_EQ(result.scored_tokens, 6);
  EXPECT_THROW(measure_perplexity("abc", model, {.window = 4}), BadInput);
}

}  // namespace
}  // namespace attar::eval
