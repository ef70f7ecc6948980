// The strings that the model would see, against digests of those that the harness makes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/io/hash.h"
#include "eval/task.h"
#include "eval/wikitext.h"
#include "tests/eval/lmeval_answers.h"

namespace attar::eval {
namespace {

using nlohmann::json;
using testing::answers_folder;
using testing::data_folder;

struct Digest {
  io::Sha256 sha;
  std::int64_t documents = 0;
  std::int64_t requests = 0;

  void add(const Task& task) {
    for (const Document& document : task.documents) {
      ++documents;
      for (std::size_t i = 0; i < document.requests(); ++i, ++requests) {
        sha.update(document.context(i)).update("\x1f").update(document.targets[i]).update("\x1e");
      }
    }
  }

  void expect_equals(const json& answer, const std::string& name) const {
    EXPECT_EQ(documents, answer.at("docs").get<std::int64_t>()) << name;
    EXPECT_EQ(requests, answer.at("requests").get<std::int64_t>()) << name;
    EXPECT_EQ(sha.hex(), answer.at("sha256").get<std::string>()) << name;
  }
};

class RequestDigests : public ::testing::TestWithParam<const char*> {};

TEST_P(RequestDigests, EqualTheHarness) {
  NEEDS_SHARED(data_folder());
  NEEDS_SHARED(answers_folder());
  const json answer = testing::read_answer("model_free/request_digests.json").at(GetParam());
  Digest all;
  for (const Task& task : open_tasks(GetParam(), {.path = data_folder()})) {
    EXPECT_EQ(task.shots, answer.at("num_fewshot").get<std::int64_t>());
    all.add(task);
    if (!answer.contains("subtasks")) continue;
    Digest subject;
    subject.add(task);
    subject.expect_equals(answer.at("subtasks").at(task.name), task.name);
  }
  all.expect_equals(answer, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Tasks, RequestDigests,
                         ::testing::Values("arc_easy", "arc_challenge", "hellaswag", "piqa",
                                           "openbookqa", "winogrande", "boolq", "lambada_openai",
                                           "mmlu", "gsm8k", "wikitext"),
                         [](const auto& test) { return std::string(test.param); });

TEST(WikitextPages, AreCutDetokenizedAndCountedAsTheHarnessDoes) {
  NEEDS_SHARED(data_folder());
  NEEDS_SHARED(answers_folder());
  const auto answers = testing::read_answer_lines("model_free/wikitext_pages.jsonl");
  const auto pages = cut_pages([] {
    std::ifstream in(data_folder() / "wikitext2_test.raw.txt", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }());
  const Task task = open_tasks("wikitext", {.path = data_folder()}).at(0);
  ASSERT_EQ(pages.size(), answers.size());
  for (std::size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(io::sha256_hex(pages[i]), answers[i].at("page_sha256")) << i;
    EXPECT_EQ(io::sha256_hex(detokenize(pages[i])), answers[i].at("detok_sha256")) << i;
    EXPECT_EQ(task.documents[i].words, answers[i].at("page_words")) << i;
    EXPECT_EQ(task.documents[i].bytes, answers[i].at("page_bytes")) << i;
  }
}

}  // namespace
}  // namespace attar::eval
