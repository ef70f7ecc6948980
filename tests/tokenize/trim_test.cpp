#include "compress/tokenize/trim.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "compress/core/errors.h"
#include "compress/io/gguf_file.h"
#include "compress/tokenize/byte_level.h"
#include "compress/tokenize/unicode.h"
#include "tests/io/temporary_folder.h"
#include "tests/tokenize/model_proto.h"

namespace attar::tokenize {
namespace {

using io::testing::TemporaryFolder;
using ::testing::HasSubstr;

const std::filesystem::path kShared = std::filesystem::path(ATTAR_SOURCE_DIR) / "../shared/data";

std::string slurp(const std::filesystem::path& path, std::size_t count) {
  std::ifstream file(path, std::ios::binary);
  std::string text(count, '\0');
  file.read(text.data(), static_cast<std::streamsize>(count));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

// The trimmed tokenizer cuts `text` into the same pieces, numbered by their place.
void expect_same_pieces(const Tokenizer& trimmed, const Tokenizer& whole, KeptTokens kept,
                        const std::string& text) {
  std::vector<TokenId> expected;
  for (const TokenId id : whole.encode(text)) {
    const auto place = place_of(kept, id);
    ASSERT_TRUE(place) << whole.token(id) << " is used and gone";
    EXPECT_EQ(trimmed.token(static_cast<TokenId>(*place)), whole.token(id));
    expected.push_back(static_cast<TokenId>(*place));
  }
  EXPECT_EQ(trimmed.encode(text), expected) << text;
}

TokenChoice choose(const Tokenizer& tokenizer, const std::string& text, const KeepRule& rule = {}) {
  TokenUse use(tokenizer);
  use.add(tokenizer, text);
  return choose_tokens(tokenizer, std::move(use), rule, tokenizer.vocabulary_size());
}

// --- random vocabularies ------------------------------------------------------------------------

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::size_t below(std::size_t bound) { return engine_() % bound; }
  template <class T>
  const T& one_of(const std::vector<T>& from) {
    return from[below(from.size())];
  }
  std::string text(const std::vector<std::string>& letters, std::size_t count) {
    std::string result;
    for (std::size_t i = 0; i < count; ++i) result += one_of(letters);
    return result;
  }

 private:
  std::mt19937 engine_;
};

struct RandomBpe {
  nlohmann::json file;
  std::vector<std::string> letters;  // as they stand in text
};

enum class Kind { kByteLevel, kByteFallback, kCharacters, kIgnoreMerges };

// Tokens of a few letters made by random merges, some by several; ids in random order.
RandomBpe random_bpe(Kind kind, unsigned seed) {
  Random random(seed);
  std::vector<std::string> all, parts;
  RandomBpe made;
  made.letters = {"a", "b", "c", "d", " "};
  const bool bytes = kind == Kind::kByteLevel || kind == Kind::kIgnoreMerges;
  if (bytes) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string letter;
      append_byte_level(std::string(1, static_cast<char>(byte)), letter);
      all.push_back(letter);
    }
    for (const std::string& letter : made.letters) append_byte_level(letter, parts.emplace_back());
  } else {
    constexpr char kDigits[] = "0123456789ABCDEF";
    for (int byte = 0; byte < 256 && kind == Kind::kByteFallback; ++byte) {
      all.push_back(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
    }
    parts = {"a", "b", "c", "d", std::string(kSpaceMark)};
    all.insert(all.end(), parts.begin(), parts.end());
    made.letters.push_back("\xC3\xA9");  // has no token
  }
  nlohmann::json merges = nlohmann::json::array();
  std::set<std::pair<std::string, std::string>> known;
  for (int i = 0; i < 60; ++i) {
    const std::string a = random.one_of(parts), b = random.one_of(parts);
    if (a.size() + b.size() > 24 || !known.insert({a, b}).second) continue;
    if (std::find(parts.begin(), parts.end(), a + b) == parts.end()) {
      parts.push_back(a + b);
      all.push_back(a + b);
    }
    merges.push_back({a, b});
  }
  if (kind == Kind::kCharacters) all.push_back("<unk>");
  for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(i)]);
  nlohmann::json vocab;
  for (std::size_t id = 0; id < all.size(); ++id) vocab[all[id]] = id;
  const auto added = [](std::size_t id, const char* content) {
    return nlohmann::json{{"id", id}, {"content", content}, {"special", true}};
  };
  made.file = {
      {"added_tokens", {added(all.size(), "<|x|>"), added(all.size() + 1, "<|end|>")}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges", merges},
        {"byte_fallback", kind == Kind::kByteFallback},
        {"ignore_merges", kind == Kind::kIgnoreMerges}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
          {{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}}},
        {"special_tokens",
         {{"<|end|>", {{"id", "<|end|>"}, {"ids", {all.size() + 1}}, {"tokens", {"<|end|>"}}}}}}}}};
  if (kind == Kind::kCharacters) made.file["model"]["unk_token"] = "<unk>";
  if (bytes) {
    made.file["pre_tokenizer"] = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", random.below(2) == 0}};
    made.file["decoder"] = {{"type", "ByteLevel"}};
  } else {
    made.file["normalizer"] = {
        {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
  }
  return made;
}

class Trim : public ::testing::TestWithParam<Kind> {};

TEST_P(Trim, LeavesThePiecesOfTheTextWhateverTheVocabulary) {
  const TemporaryFolder folder;
  std::size_t went = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    const RandomBpe bpe = random_bpe(GetParam(), seed);
    const auto path = folder.put("tokenizer.json", bpe.file.dump());
    const auto whole = load_tokenizer(path);
    Random random(seed + 1000);
    const std::string text = random.text(bpe.letters, 8 + random.below(60)) + "<|x|>";
    TokenChoice choice = choose(*whole, text);
    EXPECT_EQ(choice.lost, 0);
    went += static_cast<std::size_t>(whole->vocabulary_size()) - choice.kept.size();
    expect_same_pieces(*load_tokenizer(path, choice.kept), *whole, choice.kept, text);
    // More tokens do no harm, whichever they are.
    for (std::int64_t id = 0; id < whole->vocabulary_size(); ++id) {
      if (!place_of(choice.kept, id) && random.below(3) == 0) {
        choice.kept.insert(std::ranges::lower_bound(choice.kept, id), id);
      }
    }
    const auto trimmed = load_tokenizer(path, choice.kept);
    expect_same_pieces(*trimmed, *whole, choice.kept, text);
    // What stands around a text follows.
    EXPECT_EQ(trimmed->token(trimmed->encode(text, true).back()), "<|end|>");
    // Any other text can be read, and says the same.
    const std::string other = random.text(bpe.letters, 40);
    if (GetParam() != Kind::kByteLevel) continue;
    EXPECT_EQ(trimmed->decode(trimmed->encode(other + "\xE4\xB8\xAD")), other + "\xE4\xB8\xAD");
  }
  EXPECT_GT(went, 60 * 10u) << "there was something to trim";
}
INSTANTIATE_TEST_SUITE_P(Kinds, Trim,
                         ::testing::Values(Kind::kByteLevel, Kind::kByteFallback, Kind::kCharacters,
                                           Kind::kIgnoreMerges));

TEST(TrimSentencePiece, LeavesThePiecesOfTheTextWhateverTheVocabulary) {
  const TemporaryFolder folder;
  std::size_t went = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    Random random(seed);
    const std::vector<std::string> letters = {"a", "b", "c", std::string(kSpaceMark)};
    std::string proto = piece("<unk>", 0, PieceType::unknown) +
                        piece("<s>", 0, PieceType::control) + piece("</s>", 0, PieceType::control);
    std::set<std::string> known;
    for (int i = 0; i < 40; ++i) {
      const std::string spelling =
          i < 4 ? letters[static_cast<std::size_t>(i)] : random.text(letters, 2 + random.below(4));
      if (!known.insert(spelling).second) continue;
      const std::size_t kind = i < 4 ? 9 : random.below(10);
      proto += piece(spelling, -static_cast<float>(random.below(12)),
                     kind == 0   ? PieceType::user_defined
                     : kind == 1 ? PieceType::unused
                                 : PieceType::normal);
    }
    proto += text(2, number(3, 2) + number(4, known.size() + 3) + number(41, 1) + number(42, 2)) +
             text(3, number(4, 0));
    const auto path = folder.put("t.model", proto);
    const auto whole = load_tokenizer(path);
    const std::string words = random.text({"a", "b", "c", " ", "x"}, 6 + random.below(30));
    const TokenChoice choice = choose(*whole, words);
    went += static_cast<std::size_t>(whole->vocabulary_size()) - choice.kept.size();
    const auto trimmed = load_tokenizer(path, choice.kept);
    expect_same_pieces(*trimmed, *whole, choice.kept, words);
    EXPECT_EQ(trimmed->token(*trimmed->bos()), "<s>");
    EXPECT_EQ(trimmed->vocabulary_size(), std::ssize(choice.kept));
    EXPECT_THAT(trim_sentencepiece(proto, choice.kept, "t.model"),
                HasSubstr(number(4, choice.kept.size()) + number(41, 1) + number(42, 2)));
  }
  EXPECT_GT(went, 200 * 3u);
}

// --- vocabularies of models ---------------------------------------------------------------------

TEST(TrimSentencePiece, OfStoriesGivesTheSamePiecesAndItsIds) {
  const auto path = kShared / "tokenizers/llama2c/tok512.model";
  const auto stories = kShared / "eval/tinystories_valid_part.txt";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizers";
  if (!std::filesystem::exists(stories)) GTEST_SKIP() << "needs ../shared/data/eval";
  const std::string text = slurp(stories, 600);
  const auto whole = load_tokenizer(path);
  const TokenChoice choice = choose(*whole, text);
  EXPECT_GT(choice.basic, 258);
  EXPECT_LT(std::ssize(choice.kept), 440);
  const auto trimmed = load_tokenizer(path, choice.kept);
  expect_same_pieces(*trimmed, *whole, choice.kept, text);
  EXPECT_EQ(trimmed->bos(), 1);
  const std::string other = "Zürich \xE4\xB8\xAD  12";
  EXPECT_EQ(trimmed->decode(trimmed->encode(other)), whole->decode(whole->encode(other)));
}

TEST(TrimSentencePiece, OfLlamaGivesTheSamePieces) {
  const auto path = kShared / "tokenizers/llama2c/llama2_tokenizer.model";
  const auto english = kShared / "eval/wikitext2_test.raw.txt";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizers";
  if (!std::filesystem::exists(english)) GTEST_SKIP() << "needs ../shared/data/eval";
  const std::string text = slurp(english, 100000);
  const auto whole = load_tokenizer(path);
  const TokenChoice choice = choose(*whole, text);
  EXPECT_LT(std::ssize(choice.kept), 10000);
  const auto trimmed = load_tokenizer(path, choice.kept);
  expect_same_pieces(*trimmed, *whole, choice.kept, text);
  // The mark for a space stays: its bytes would be read as another character.
  const std::vector<std::int64_t> basic = choose(*whole, "").kept;
  const auto bytes = load_tokenizer(path, basic);
  EXPECT_EQ(std::ssize(basic), 3 + 256 + 1);
  EXPECT_EQ(bytes->decode(bytes->encode("two words")), "two words");
}

class TrimGguf : public ::testing::TestWithParam<const char*> {};

TEST_P(TrimGguf, GivesTheSamePieces) {
  const auto path = kShared / "tokenizers/llama.cpp-vocab" / GetParam();
  const auto english = kShared / "eval/wikitext2_test.raw.txt";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizers";
  if (!std::filesystem::exists(english)) GTEST_SKIP() << "needs ../shared/data/eval";
  const std::string text = slurp(english, 40000);
  const io::GgufFile file = io::GgufFile::open(path);
  const auto whole = tokenizer_from_gguf(file);
  const TokenChoice choice = choose(*whole, text);
  EXPECT_LT(std::ssize(choice.kept), whole->vocabulary_size() / 3);
  const auto trimmed = tokenizer_from_gguf(file, choice.kept);
  expect_same_pieces(*trimmed, *whole, choice.kept, text);
  if (whole->eos()) {
    EXPECT_EQ(trimmed->token(*trimmed->eos()), whole->token(*whole->eos()));
  }
  const std::string other = slurp(path.string() + ".inp", 3000);
  EXPECT_EQ(trimmed->decode(trimmed->encode(other)), whole->decode(whole->encode(other)));
}
INSTANTIATE_TEST_SUITE_P(Vocabularies, TrimGguf,
                         ::testing::Values("ggml-vocab-gpt-2.gguf", "ggml-vocab-starcoder.gguf",
                                           "ggml-vocab-llama-spm.gguf"));

// --- choosing -----------------------------------------------------------------------------------

// 0-4 "a" "b" "c" "d" "<0x..>"-less: characters, then merges ab, abc, abcd, cd.
std::string ladder() {
  return R"({"model": {"type": "BPE", "unk_token": "?",
    "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "?": 4, "ab": 5, "abc": 6, "abcd": 7, "cd": 8},
    "merges": ["a b", "ab c", "abc d", "c d"]}})";
}

TEST(ChooseTokens, KeepsWhatStandsOnTheWayToAToken) {
  const TemporaryFolder folder;
  const auto whole = load_tokenizer(folder.put("tokenizer.json", ladder()));
  EXPECT_EQ(choose(*whole, "abcd").kept, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(choose(*whole, "dcd").kept, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 8}));
}

TEST(ChooseTokens, TakesTheLeastUsedAwayFromTheTipAndSaysHowMany) {
  const TemporaryFolder folder;
  const auto whole = load_tokenizer(folder.put("tokenizer.json", ladder()));
  // abcd once, cd twice: abcd goes first, then abc and ab with its use, cd last.
  const std::string text = "abcdcdcd";
  EXPECT_EQ(choose(*whole, text, {.size = 8}).kept,
            (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 8}));
  const TokenChoice choice = choose(*whole, text, {.size = 6});
  EXPECT_EQ(choice.kept, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 8}));
  EXPECT_EQ(choice.lost, 3);
  EXPECT_EQ(choose(*whole, text, {.min_count = 2}).kept, choice.kept);
  EXPECT_THROW(choose(*whole, text, {.size = 4}), UsageError);
  // The earliest ids stay unused, with what they are made from.
  EXPECT_EQ(choose(*whole, "", {.first = 7}).kept,
            (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6}));
}

TEST(ChooseTokens, RefusesTextThatNeedsARowThatIsNotThere) {
  const TemporaryFolder folder;
  const auto whole = load_tokenizer(folder.put("tokenizer.json", ladder()));
  TokenUse use(*whole);
  use.add(*whole, "cd");
  EXPECT_THROW(choose_tokens(*whole, use, {}, 8), BadInput);
}

// --- other files --------------------------------------------------------------------------------

TEST(RenumberIds, FollowsNumbersListsAndKeys) {
  nlohmann::ordered_json file = nlohmann::ordered_json::parse(
      R"({"bos_token_id": 5, "eos_token_id": [9, 7, 5], "pad_token_id": null, "x": 5,
          "decoder_start_token_id": 7, "forced_token_id": -1, "suppress_tokens": [5, 8],
          "added_tokens_decoder": {"5": "five", "7": "seven", "9": "nine"}})");
  const std::vector<std::int64_t> kept = {1, 5, 9};
  renumber_ids(file, kept);
  EXPECT_EQ(file, nlohmann::ordered_json::parse(
                      R"({"bos_token_id": 1, "eos_token_id": [2, 1], "pad_token_id": null, "x": 5,
          "forced_token_id": -1, "suppress_tokens": [1],
          "added_tokens_decoder": {"1": "five", "2": "nine"}})"));
}

TEST(TrimTokenizerJson, RefusesToTakeATokenThatThePostProcessorNeeds) {
  const RandomBpe bpe = random_bpe(Kind::kByteLevel, 1);
  const std::vector<std::int64_t> kept = {0, 1, 2};
  try {
    trim_tokenizer_json(bpe.file, kept, "t.json");
    FAIL();
  } catch (const BadInput& error) {
    EXPECT_THAT(error.what(), HasSubstr("post_processor.special_tokens.<|end|>"));
  }
}

}  // namespace
}  // namespace attar::tokenize
