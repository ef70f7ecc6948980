// Options, few-shot examples and bad data, on small files of our own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "compress/core/errors.h"
#include "eval/task.h"

namespace attar::eval {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TaskFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("attar_tasks_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }

  // Rows "Question: <letter>\nAnswer:" with choices <letter>0, <letter>1 and gold 1.
  void write_questions(const std::string& name, const std::string& letters) {
    std::string text;
    for (const char c : letters) {
      const std::string letter(1, c);
      text += R"({"query": "Question: )" + letter + R"(\nAnswer:", "choices": [")" + letter +
              R"(0", ")" + letter + R"(1"], "gold": 1})" + "\n";
    }
    write(name, text);
  }

  Task open(const std::string& name, TaskOptions options = {}) {
    options.path = folder_;
    return open_tasks(name, options).at(0);
  }

  // Opens and gives the message of the error thrown.
  template <class Error>
  std::string refusal(const std::string& name, const TaskOptions& options = {}) {
    try {
      open(name, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  fs::path folder_;
};

TEST_F(TaskFiles, ShotsComeFromTheTrainFileInTheOrderOfTheRandomStream) {
  write_questions("arc_easy_test.jsonl", "XY");
  write_questions("arc_easy_train.jsonl", "abcdefghijklmnopqrstuvwxyz");
  const Task task = open("arc_easy", {.shots = 2});
  // CPython: r = random.Random(1234); r.sample(range(26), 2) twice.
  EXPECT_THAT(task.documents[0].shots, ElementsAre(24, 14));
  EXPECT_THAT(task.documents[1].shots, ElementsAre(3, 0));
  const std::string a(1, static_cast<char>('a' + task.documents[0].shots[0]));
  const std::string b(1, static_cast<char>('a' + task.documents[0].shots[1]));
  EXPECT_EQ(task.documents[0].contexts[0], "Question: " + a + "\nAnswer: " + a + "1\n\nQuestion: " +
                                               b + "\nAnswer: " + b + "1\n\nQuestion: X\nAnswer:");
}

// PIQA names no test split: one more row is drawn, and the document itself is left out.
TEST_F(TaskFiles, WithoutATrainFileOtherRowsOfTheSameSplitAreShots) {
  std::string text;
  for (char c = 'a'; c <= 'l'; ++c) {
    text += R"({"query": "Goal: )" + std::string(1, c) +
            R"(\nAnswer:", "choices": ["no", "yes"], "gold": 0})" + "\n";
  }
  write("piqa_val.jsonl", text);
  const Task task = open("piqa", {.shots = 2});
  for (const Document& document : task.documents) {
    EXPECT_EQ(document.shots.size(), 2U);
    EXPECT_THAT(document.shots, ::testing::Not(::testing::Contains(document.index)));
  }
  // CPython: r = random.Random(1234); r.sample(range(12), 3) once a document.
  EXPECT_THAT(task.documents[0].shots, ElementsAre(7, 1));
  EXPECT_THAT(task.documents[1].shots, ElementsAre(9, 0))
      << "it drew itself and went on to the third";
}

TEST_F(TaskFiles, EveryFamilyIsRenderedByItsOwnRules) {
  write("boolq_val.jsonl",
        R"({"query": "T -- p\nQuestion: q?\nAnswer:", "choices": ["yes", "no"], "gold": 0})");
  const Document boolq = open("boolq").documents[0];
  EXPECT_THAT(boolq.targets, ElementsAre(" no", " yes"));
  EXPECT_EQ(boolq.gold, 1);

  write("winogrande_val.jsonl",
        R"({"sentence": "The _ 's lid.", "option1": "box", "option2": "t\u00e9", "gold": 1})");
  const Document winogrande = open("winogrande").documents[0];
  EXPECT_THAT(winogrande.contexts, ElementsAre("The box", "The t\xC3\xA9"));
  EXPECT_THAT(winogrande.targets, ElementsAre(" 's lid.", " 's lid."));
  EXPECT_THAT(winogrande.choice_characters, ElementsAre(7, 6));
  EXPECT_THAT(winogrande.choice_bytes, ElementsAre(7, 7));

  write("openbookqa_test.jsonl",
        R"({"query": "Question: Sky is\nAnswer:", "choices": ["blue "], "gold": 0})");
  const Document stem = open("openbookqa").documents[0];
  EXPECT_EQ(stem.contexts[0], "Sky is");
  EXPECT_EQ(stem.targets[0], " blue ");
  EXPECT_EQ(stem.choice_characters[0], 5) << "without the blank in front";

  write("lambada_openai.jsonl", R"({"context": "a b", "continuation": "of\n\nP"})");
  EXPECT_EQ(open("lambada_openai").documents[0].targets[0], " of\n\nP");
}

TEST_F(TaskFiles, AreRefusedShotsThatWouldShowTheAnswer) {
  write_questions("openbookqa_test.jsonl", "XYZ");
  EXPECT_THAT(refusal<UsageError>("openbookqa", {.shots = 1}),
              AllOf(HasSubstr("shots=1"), HasSubstr("openbookqa_train.jsonl")));
}

TEST_F(TaskFiles, LimitAndSkipKeepWhatEachDocumentWouldGet) {
  write_questions("arc_easy_test.jsonl", "UVWXYZ");
  write_questions("arc_easy_train.jsonl", "abcdefghijklmnopqrstuvwxyz");
  const Task all = open("arc_easy", {.shots = 3});
  const Task part = open("arc_easy", {.limit = 4, .skip = 2, .shots = 3});
  ASSERT_EQ(part.documents.size(), 2U);
  EXPECT_EQ(part.documents_in_source, 6);
  EXPECT_EQ(part.documents[0].index, 2);
  EXPECT_EQ(part.documents[0].contexts, all.documents[2].contexts);
  EXPECT_EQ(open("arc_easy", {.limit = 100}).documents.size(), 6U);
}

TEST_F(TaskFiles, MmluTakesAnySubjectAndTheFirstRowsOfDev) {
  const auto row = [](const std::string& subject, const std::string& question) {
    return R"({"subject": ")" + subject + R"(", "question": " )" + question +
           R"( ", "choices": ["p ", "q"], "answer": 1})" + "\n";
  };
  write("mmlu_test.jsonl", row("zoo", "Z?") + row("anatomy", "A?") + row("zoo", "Y?"));
  write("mmlu_dev.jsonl", row("zoo", "D?") + row("zoo", "E?") + row("anatomy", "F?"));
  const auto tasks = open_tasks("mmlu", {.path = folder_, .shots = 1});
  ASSERT_EQ(tasks.size(), 2U);
  EXPECT_THAT(tasks[0].groups, ElementsAre("mmlu", "mmlu_stem"));
  EXPECT_THAT(tasks[1].groups, ElementsAre("mmlu"));
  EXPECT_EQ(tasks[1].documents[1].contexts[0],
            "The following are multiple choice questions (with answers) about zoo.\n\n"
            "D?\nA. p \nB. q\nAnswer: B\n\nY?\nA. p \nB. q\nAnswer:");
  EXPECT_EQ(open_tasks("mmlu_zoo", {.path = folder_, .shots = 0}).size(), 1U);
  EXPECT_THAT(refusal<UsageError>("mmlu_anatomy", {.shots = 2}), HasSubstr("ask for fewer"));
  EXPECT_THAT(refusal<UsageError>("mmlu_moon", {.shots = 0}), HasSubstr("no subject 'moon'"));
}

TEST_F(TaskFiles, BrokenRowsAreRefusedWithFileLineAndKey) {
  const auto broken = [&](const std::string& row) {
    write_questions("arc_easy_test.jsonl", "X");
    std::ofstream(folder_ / "arc_easy_test.jsonl", std::ios::app) << "\n" << row << "\n";
    return refusal<BadInput>("arc_easy");
  };
  const auto at_line_3 = HasSubstr("arc_easy_test.jsonl:3");
  EXPECT_THAT(broken("{"), at_line_3);
  EXPECT_THAT(broken("[]"), AllOf(at_line_3, HasSubstr("object")));
  EXPECT_THAT(broken(R"({"choices": ["a"], "gold": 0})"), AllOf(at_line_3, HasSubstr("'query'")));
  EXPECT_THAT(broken(R"({"query": "what?", "choices": ["a"], "gold": 0})"),
              AllOf(at_line_3, HasSubstr("begin with")));
  const std::string query = R"("query": "Question: X\nAnswer:")";
  EXPECT_THAT(broken("{" + query + R"(, "choices": [], "gold": 0})"), HasSubstr("'choices'"));
  EXPECT_THAT(broken("{" + query + R"(, "choices": [1], "gold": 0})"), HasSubstr("strings only"));
  EXPECT_THAT(broken("{" + query + R"(, "choices": ["a"], "gold": 1})"), HasSubstr("got 1"));
  EXPECT_THAT(broken("{" + query + R"(, "choices": ["a"], "gold": 0.5})"), HasSubstr("integer"));
  EXPECT_THAT(broken("{" + query + R"(, "choices": ["a"], "gold": 18446744073709551615})"),
              HasSubstr("integer"));
}

TEST_F(TaskFiles, OptionsThatATaskDoesNotHaveAreRefused) {
  write_questions("arc_easy_test.jsonl", "X");
  EXPECT_THAT(refusal<UsageError>("arc_eazy"), HasSubstr("known tasks: arc_challenge"));
  EXPECT_THAT(refusal<UsageError>("arc_easy", {.limit = 0}), HasSubstr("limit"));
  EXPECT_THAT(refusal<UsageError>("arc_easy", {.skip = 1}), HasSubstr("skip"));
  EXPECT_THAT(refusal<UsageError>("arc_easy", {.shots = -1}), HasSubstr("shots"));
  EXPECT_THAT(refusal<UsageError>("arc_easy", {.max_length = 5}), HasSubstr("max_length"));
  EXPECT_THAT(refusal<IoError>("gsm8k"), HasSubstr("gsm8k_test.jsonl"));
  EXPECT_THROW(open_tasks("arc_easy", {}), UsageError);
  EXPECT_THROW(open_tasks("arc_easy", {.path = folder_ / "none"}), IoError);
  write("wikitext2_test.raw.txt", " = A = \n words");
  EXPECT_THAT(refusal<UsageError>("wikitext", {.shots = 1}), HasSubstr("no shots"));
  EXPECT_THAT(refusal<UsageError>("wikitext", {.max_length = 1}), HasSubstr("at least 2"));
  write("arc_challenge_test.jsonl", "\n\n");
  EXPECT_THAT(refusal<BadInput>("arc_challenge"), HasSubstr("no rows"));
}

TEST_F(TaskFiles, AFileMayStandInForItsFolder) {
  write_questions("mine.jsonl", "XYZ");
  write_questions("arc_easy_train.jsonl", "abc");
  const auto task = open_tasks("arc_easy", {.path = folder_ / "mine.jsonl", .shots = 1}).at(0);
  EXPECT_EQ(task.documents.size(), 3U);
  EXPECT_EQ(task.source, folder_ / "mine.jsonl");
}

}  // namespace
}  // namespace attar::eval
