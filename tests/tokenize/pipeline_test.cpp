#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "compress/core/errors.h"
#include "compress/tokenize/tokenizer_json.h"

namespace attar::tokenize {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// a=0 b=1 c=2 ab=3 abc=4 "Ġ"=5 "Ġa"=6, <s>=7 (special), "xx"=8 (added)
const char* const kSmall = R"({
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "Ġ": 5, "Ġa": 6},
            "merges": ["Ġ a", "a b", ["ab", "c"]]},
  "added_tokens": [{"id": 7, "content": "<s>", "special": true},
                   {"id": 8, "content": "xx", "special": false}],
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
  "post_processor": {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
  "decoder": {"type": "ByteLevel"}})";

std::shared_ptr<const Tokenizer> parse(const nlohmann::json& file) {
  return make_pipeline(read_tokenizer_json(file, "file.json"));
}

std::shared_ptr<const Tokenizer> small() { return parse(nlohmann::json::parse(kSmall)); }

TEST(Pipeline, MatchesHandWorkedIds) {
  const auto tokenizer = small();
  EXPECT_THAT(tokenizer->encode("abc ab"), ElementsAre(4, 6, 1));  // "Ġ a" goes before "a b"
  EXPECT_THAT(tokenizer->encode("abxx<s>c"), ElementsAre(3, 8, 7, 2));
  EXPECT_THAT(tokenizer->encode("b", true), ElementsAre(7, 1));
  EXPECT_THAT(tokenizer->encode("", true), ElementsAre(7));
  EXPECT_EQ(tokenizer->vocabulary_size(), 9);
  EXPECT_EQ(tokenizer->id_of("xx"), 8);
  EXPECT_EQ(tokenizer->token(6),
            "\xC4\xA0"
            "a");
  EXPECT_TRUE(tokenizer->is_special(7) && !tokenizer->is_special(8));
}

TEST(Pipeline, DecodesWithoutSpecialAndUnknownIds) {
  const auto tokenizer = small();
  const std::vector<TokenId> ids = {7, 4, 6, -1, 99, 8};
  EXPECT_EQ(tokenizer->decode(ids), "abc axx");
  EXPECT_EQ(tokenizer->decode(ids, false), "<s>abc axx");
}

// U+FFFD has the bytes EF BF BD, none of which is in this vocabulary.
TEST(Pipeline, TakesIllFormedTextAsReplacementCharacters) {
  const auto tokenizer = small();
  for (const std::string_view bad : {"a\xFF", "a\xE2\x82", "a\xED\xA0\x80", "a\xC0"}) {
    EXPECT_THAT(tokenizer->encode(std::string(bad) + "b"), ElementsAre(0, 1))
        << testing::PrintToString(bad);
  }
}

TEST(Pipeline, GivesTheSameIdsFromManyThreads) {
  const auto tokenizer = small();
  std::string text;
  for (int i = 0; i < 2000; ++i) text += i % 3 == 0 ? "abc" : i % 3 == 1 ? " ab" : "xx";
  const auto expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (bool& result : same) {
    threads.emplace_back([&] { result = tokenizer->encode(text) == expected; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(same, testing::Each(true));
}

// A character that stands in the vocabulary only as an added token is unknown to the model.
TEST(Pipeline, KeepsAddedTokensOutOfTheModel) {
  auto file = nlohmann::json::parse(kSmall);
  file["added_tokens"].push_back({{"id", 9}, {"content", "z"}, {"single_word", true}});
  const auto tokenizer = parse(file);
  EXPECT_THAT(tokenizer->encode("z"), ElementsAre(9));
  EXPECT_THAT(tokenizer->encode("zb"), ElementsAre(1));
}

struct Bad {
  const char* name;
  const char* patch;  // JSON merge patch on kSmall
  const char* words;  // of the message
};

class BadFile : public testing::TestWithParam<Bad> {};

TEST_P(BadFile, IsRefusedWithThePathInTheFile) {
  auto file = nlohmann::json::parse(kSmall);
  file.merge_patch(nlohmann::json::parse(GetParam().patch));
  try {
    parse(file);
    FAIL() << "was read";
  } catch (const BadInput& error) {
    EXPECT_THAT(error.what(), HasSubstr("file.json"));
    EXPECT_THAT(error.what(), HasSubstr(GetParam().words));
  }
}

INSTANTIATE_TEST_SUITE_P(
    TokenizerJson, BadFile,
    testing::Values(
        Bad{"no_model", R"({"model": null})", "model"},
        Bad{"unigram", R"({"model": {"type": "Unigram"}})", "'Unigram'"},
        Bad{"vocabulary_is_a_list", R"({"model": {"vocab": ["a"]}})", "model.vocab"},
        Bad{"negative_id", R"({"model": {"vocab": {"q": -1}}})", "model.vocab"},
        Bad{"huge_id", R"({"model": {"vocab": {"q": 2147483646}}})", "model.vocab"},
        Bad{"fractional_id", R"({"model": {"vocab": {"q": 1.5}}})", "model.vocab"},
        Bad{"id_twice", R"({"model": {"vocab": {"q": 0}}})", "belongs to both"},
        Bad{"merge_of_strangers", R"({"model": {"merges": ["a q"]}})", "model.merges"},
        Bad{"merge_of_three", R"({"model": {"merges": ["a b c"]}})", "model.merges[0]"},
        Bad{"merge_is_a_number", R"({"model": {"merges": [3]}})", "model.merges[0]"},
        Bad{"unknown_is_no_token", R"({"model": {"unk_token": "q"}})", "model.unk_token"},
        Bad{"dropout", R"({"model": {"dropout": 0.1}})", "dropout"},
        Bad{"added_id_off", R"({"added_tokens": [{"id": 70, "content": "<s>"}]})",
            "added_tokens[0]"},
        Bad{"normalizer", R"({"normalizer": {"type": "Nmt"}})", "normalizer"},
        Bad{"nested",
            R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "X"}]}})",
            "pre_tokenizer.pretokenizers[0]"},
        Bad{"decoder", R"({"decoder": {"type": "CTC"}})", "'CTC'"},
        Bad{"template_id", R"({"post_processor": {"special_tokens": {"<s>": {"ids": [400]}}}})",
            "400"}),
    [](const auto& param) { return std::string(param.param.name); });

class Folder : public testing::Test {
 protected:
  Folder() { std::filesystem::create_directories(path_); }
  ~Folder() override { std::filesystem::remove_all(path_); }
  void write(const char* name, const std::string& text) {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                ("attar_tokenize_" + std::to_string(::getpid()) + "_" +
                                 testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(Folder, TakesSpecialIdsFromTheFilesBesideTheTokenizer) {
  write("tokenizer.json", kSmall);
  write("tokenizer_config.json",
        R"({"bos_token": {"content": "<s>"}, "unk_token": "a", "chat_template": "{{ a }}"})");
  write("generation_config.json", R"({"eos_token_id": [2, 1], "pad_token_id": 8})");
  write("config.json", R"({"eos_token_id": 0, "bos_token_id": 0})");
  const auto tokenizer = load_tokenizer(path_);
  EXPECT_EQ(tokenizer->bos(), 7);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_EQ(tokenizer->ends(), (std::vector<TokenId>{2, 1}));
  EXPECT_EQ(tokenizer->unknown(), 0);
  EXPECT_EQ(tokenizer->padding(), 8);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->chat_template(), "{{ a }}");
  write("chat_template.jinja", "{{ b }}");
  EXPECT_EQ(load_tokenizer(path_)->chat_template(), "{{ b }}");
}

TEST_F(Folder, SaysWhatIsMissing) {
  EXPECT_THROW(load_tokenizer(path_), BadInput);
  EXPECT_THROW(load_tokenizer(path_ / "none"), IoError);
  write("tokenizer.json", "{");
  EXPECT_THROW(load_tokenizer(path_), BadInput);
  write("vocab.txt", "a");
  EXPECT_THROW(load_tokenizer(path_ / "vocab.txt"), BadInput);
}

}  // namespace
}  // namespace attar::tokenize
