#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/formats/gguf_tokenizer.h"
#include "compress/formats/huggingface_tokenizer.h"
#include "compress/io/json.h"
#include "compress/tokenize/tokenizer.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using io::testing::TemporaryFolder;
using ::testing::HasSubstr;

const std::filesystem::path kVocabularies =
    std::filesystem::path(ATTAR_SOURCE_DIR) / "../shared/data/tokenizers";

const std::vector<std::string> kTexts = {"Hello, world!",
                                         " two  spaces",
                                         "It's 12345 o'clock\n\n\tok",
                                         "naïve café – ½ \xF0\x9F\x98\x80",
                                         "x\r\ny",
                                         "",
                                         "<s>hi</s>",
                                         "中文 and العربية",
                                         "            deep",
                                         "a\x01"
                                         "b"};

void expect_same_ids(const Tokenizer& got, const Tokenizer& expected) {
  for (const std::string& text : kTexts) {
    EXPECT_EQ(got.encode(text), expected.encode(text)) << text;
    EXPECT_EQ(got.encode(text, true), expected.encode(text, true)) << text;
    const std::vector<TokenId> ids = expected.encode(text);
    EXPECT_EQ(got.decode(ids), expected.decode(ids)) << text;
  }
  EXPECT_EQ(got.bos(), expected.bos());
  EXPECT_EQ(got.eos(), expected.eos());
}

class OfGguf : public ::testing::TestWithParam<const char*> {};

TEST_P(OfGguf, IsWrittenAsAFolderThatGivesTheSameIds) {
  const auto path = kVocabularies / "llama.cpp-vocab" / GetParam();
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizers";
  const io::GgufFile file = io::GgufFile::open(path);
  const TemporaryFolder folder;
  write_tokenizer_of_gguf(file, folder.path());
  expect_same_ids(*load_tokenizer(folder.path()), *tokenizer_from_gguf(file));
}
INSTANTIATE_TEST_SUITE_P(Vocabularies, OfGguf,
                         ::testing::Values("ggml-vocab-gpt-2.gguf", "ggml-vocab-starcoder.gguf",
                                           "ggml-vocab-falcon.gguf", "ggml-vocab-llama-spm.gguf",
                                           "ggml-vocab-deepseek-coder.gguf"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name.substr(11, name.size() - 16);
                         });

// Through a GGUF with the vocabulary of a folder and back to a tokenizer.
std::shared_ptr<const Tokenizer> through_gguf(const TemporaryFolder& folder, std::int64_t size) {
  io::GgufWriter writer(folder / "v.gguf");
  writer.set_string("general.architecture", "llama");
  write_vocabulary(writer, read_gguf_vocabulary(folder.path(), size));
  writer.finish();
  return tokenizer_from_gguf(io::GgufFile::open(folder / "v.gguf"));
}

TEST(OfFolder, SentencePieceGivesTheSameIdsInGguf) {
  const auto path = kVocabularies / "llama2c" / "tok512.model";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizers";
  const TemporaryFolder folder;
  std::filesystem::copy(path, folder / "tokenizer.model");
  EXPECT_THAT(read_gguf_vocabulary(folder.path(), 520).notes,
              ::testing::ElementsAre(HasSubstr("runs of spaces")));
  const auto got = through_gguf(folder, 520);  // eight rows more than the vocabulary
  const auto expected = load_tokenizer(folder.path());
  for (const std::string& text : kTexts) {
    // GGUF recognizes control tokens in text and keeps every space.
    if (text.find("<s>") != std::string::npos || text.find("  ") != std::string::npos) continue;
    EXPECT_EQ(got->encode(text, true), expected->encode(text, true)) << text;
  }
}

// A byte-level vocabulary of the 256 letters, two merges and two added tokens.
nlohmann::json small_tokenizer() {
  nlohmann::json vocab;
  const auto letter = [](int code) {
    std::string utf8;
    if (code < 0x80) return utf8 + static_cast<char>(code);
    utf8 += static_cast<char>(0xC0 | code >> 6);
    return utf8 + static_cast<char>(0x80 | (code & 0x3F));
  };
  int id = 0, next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab[letter(itself ? byte : next++)] = id++;
  }
  vocab["th"] = 256;
  vocab["the"] = 257;
  const auto added = [](int number, const char* content, bool special) {
    return nlohmann::json{{"id", number},      {"content", content}, {"single_word", false},
                          {"lstrip", false},   {"rstrip", false},    {"normalized", false},
                          {"special", special}};
  };
  return {{"version", "1.0"},
          {"added_tokens", {added(258, "<|end|>", true), added(259, "[tool]", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Digits"}, {"individual_digits", true}},
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"t h", "th e"}}}}};
}

TEST(OfFolder, ByteLevelBpeGivesTheSameIdsInGguf) {
  const TemporaryFolder folder;
  io::write_json(folder / "tokenizer.json", small_tokenizer());
  folder.put("tokenizer_config.json", R"({"eos_token": "<|end|>", "chat_template": "{{ x }}"})");
  const auto got = through_gguf(folder, 262);
  expect_same_ids(*got, *load_tokenizer(folder.path()));
  EXPECT_EQ(got->encode("the [tool]<|end|>"), (std::vector<TokenId>{257, 32, 259, 258}));
  EXPECT_EQ(got->chat_template(), "{{ x }}");
  const GgufVocabulary vocabulary = read_gguf_vocabulary(folder.path(), 262);
  EXPECT_EQ(vocabulary.pre, "smollm");
  EXPECT_EQ(vocabulary.types[258], 3);
  EXPECT_EQ(vocabulary.types[259], 4);
  EXPECT_EQ(vocabulary.types[261], 5);
  EXPECT_EQ(vocabulary.tokens[261], "[PAD261]");
  EXPECT_FALSE(vocabulary.add_bos);
}

TEST(OfFolder, IsRefusedWhenLlamaCppHasNoNameForItsWay) {
  const TemporaryFolder folder;
  const auto refusal = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json tokenizer = small_tokenizer();
    tokenizer[nlohmann::json::json_pointer(pointer)] = value;
    io::write_json(folder / "tokenizer.json", tokenizer);
    return message_of<BadInput>([&] { read_gguf_vocabulary(folder.path(), 262); });
  };
  EXPECT_THAT(refusal("/pre_tokenizer/pretokenizers/0/individual_digits", false),
              HasSubstr("unknown pre-tokenizer"));
  EXPECT_THAT(refusal("/pre_tokenizer", nullptr), HasSubstr("unknown pre-tokenizer"));
  EXPECT_THAT(refusal("/model/ignore_merges", true), HasSubstr("unknown pre-tokenizer"));
  EXPECT_THAT(refusal("/normalizer", {{"type", "Lowercase"}}), HasSubstr("normalizer"));
  EXPECT_THAT(refusal("/model/type", "Unigram"), HasSubstr("supported: BPE"));
  EXPECT_THAT(refusal("/added_tokens/0/id", 262), HasSubstr("below the 262 rows"));
}

}  // namespace
}  // namespace attar
