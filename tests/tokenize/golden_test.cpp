// Vectors from other programs: llama.cpp's for GGUF vocabularies, ids of llama2.c for its models.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "compress/core/errors.h"
#include "compress/io/gguf_file.h"
#include "compress/io/json.h"
#include "compress/tokenize/tokenizer.h"

namespace attar {
namespace {

const std::filesystem::path kShared = ATTAR_SOURCE_DIR "/../shared";
const std::filesystem::path kTokenizers = kShared / "data/tokenizers";
const std::filesystem::path kModels = kShared / "data/models";

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::string> split(const std::string& text, const std::string& mark) {
  std::vector<std::string> parts;
  std::size_t at = 0;
  for (std::size_t hit; (hit = text.find(mark, at)) != std::string::npos; at = hit + mark.size()) {
    parts.push_back(text.substr(at, hit - at));
  }
  parts.push_back(text.substr(at));
  return parts;
}

class LlamaCpp : public testing::TestWithParam<const char*> {};

TEST_P(LlamaCpp, GivesTheSameIds) {
  const auto stem = kTokenizers / "llama.cpp-vocab" / ("ggml-vocab-" + std::string(GetParam()));
  const std::string file = stem.string() + ".gguf";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "needs " << file;
  const auto tokenizer = tokenizer_from_gguf(io::GgufFile::open(file));
  const auto texts = split(read_file(file + ".inp"), "\n__ggml_vocab_test__\n");
  const auto lines = split(read_file(file + ".out"), "\n");
  ASSERT_GE(texts.size(), 46u);
  ASSERT_GE(lines.size(), texts.size() - 1);
  for (std::size_t i = 0; i + 1 < texts.size(); ++i) {
    std::vector<TokenId> expected;
    std::istringstream numbers(lines[i]);
    for (TokenId id; numbers >> id;) expected.push_back(id);
    const auto ids = tokenizer->encode(texts[i]);
    EXPECT_EQ(ids, expected) << "case " << i << ": " << testing::PrintToString(texts[i]);
    EXPECT_EQ(tokenizer->decode(ids), texts[i]) << "case " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, LlamaCpp,
                         testing::Values("gpt-2", "llama-spm", "phi-3", "falcon", "mpt",
                                         "starcoder", "refact", "deepseek-llm", "deepseek-coder"),
                         [](const auto& param) {
                           std::string name = param.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(GgufVocabulary, WithoutAPreTokenizerIsRefused) {
  const auto file = kTokenizers / "llama.cpp-vocab/ggml-vocab-gpt-neox.gguf";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "needs " << file;
  try {
    tokenizer_from_gguf(io::GgufFile::open(file));
    FAIL() << "was read";
  } catch (const BadInput& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("tokenizer.ggml.pre"));
  }
}

// The prompt of the models' reference runs, and their greedy text back from its ids.
TEST(Llama2c, PromptsHaveTheIdsOfTheReferenceRuns) {
  struct Case {
    const char *model, *tokenizer;
  };
  for (const auto& [model, name] :
       {Case{"stories260K", "tok512.model"}, Case{"llama2xs-279K", "tok512.model"},
        Case{"babyllama-tok105-936K", "tok105.model"}}) {
    const auto file = kModels / model / "reference.json";
    if (!std::filesystem::exists(file)) GTEST_SKIP() << "needs " << file;
    const auto reference = io::load_json(file);
    const auto tokenizer = load_tokenizer(kTokenizers / "llama2c" / name);
    const auto ids = tokenizer->encode(reference["prompt"].get<std::string>(), true);
    EXPECT_EQ(ids, reference["prompt_ids"].get<std::vector<TokenId>>()) << model;
    auto all = ids;
    for (const auto& id : reference["greedy_64_ids"]) all.push_back(id.get<TokenId>());
    EXPECT_EQ(tokenizer->decode(all), reference["greedy_text"].get<std::string>()) << model;
  }
}

}  // namespace
}  // namespace attar
