#include "compress/tokenize/sentencepiece.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "tests/tokenize/model_proto.h"

namespace attar::tokenize {
namespace {

using testing::ElementsAre;

const std::string kMark = "\xE2\x96\x81";

// 0 <unk>, 1 <s>, 2 </s>, 3 "▁", 4 "a", 5 "b", 6 "▁a" -3, 7 "ab" -1, 8 "▁ab" -2, 9 "<u>"
// user-defined
std::string small(const std::string& normalizer = number(4, 0)) {
  return piece("<unk>", 0, PieceType::unknown) + piece("<s>", 0, PieceType::control) +
         piece("</s>", 0, PieceType::control) + piece(kMark, -9, PieceType::normal) +
         piece("a", -8, PieceType::normal) + piece("b", -7, PieceType::normal) +
         piece(kMark + "a", -3, PieceType::normal) + piece("ab", -1, PieceType::normal) +
         piece(kMark + "ab", -2, PieceType::normal) + piece("<u>", 0, PieceType::user_defined) +
         text(2, number(3, 2)) + text(3, normalizer);
}

SentencePieceModel read(const std::string& bytes) {
  return read_sentencepiece(std::as_bytes(std::span(bytes)), "test.model");
}
std::shared_ptr<const Tokenizer> load(const std::string& bytes) {
  return make_sentencepiece(read(bytes), "test.model");
}

TEST(SentencePiece, MergesTheHighestScoreFirst) {
  const auto tokenizer = load(small());
  EXPECT_THAT(tokenizer->encode("ab"), ElementsAre(8));      // "ab" -1, then "▁ab" -2
  EXPECT_THAT(tokenizer->encode("aab"), ElementsAre(6, 7));  // not "▁" "a" "ab": "▁a" -3 is left
  EXPECT_THAT(tokenizer->encode("a  b"), ElementsAre(6, 3, 3, 5));
  EXPECT_THAT(tokenizer->encode("ab", true), ElementsAre(1, 8));
  EXPECT_THAT(tokenizer->encode(""), ElementsAre());
}

TEST(SentencePiece, FusesUnknownCharactersAndKeepsUserDefinedOnes) {
  const auto tokenizer = load(small());
  EXPECT_THAT(tokenizer->encode("xyb"), ElementsAre(3, 0, 5));
  EXPECT_THAT(tokenizer->encode("a<u>b"), ElementsAre(6, 9, 5));
  EXPECT_THAT(tokenizer->encode("<s>"), ElementsAre(3, 0));  // control pieces do not stand in text
}

TEST(SentencePiece, DecodesWithoutTheFirstSpace) {
  const auto tokenizer = load(small());
  const std::vector<TokenId> ids = {1, 8, 6, 0, 9, 77};
  EXPECT_EQ(tokenizer->decode(ids), "ab a \xE2\x81\x87 <u>");
  EXPECT_EQ(tokenizer->decode(ids, false), "<s> ab a \xE2\x81\x87 <u>");
}

TEST(SentencePiece, SqueezesSpacesWhereTheFileSaysSo) {
  const auto tokenizer = load(small(number(4, 1)));
  EXPECT_THAT(tokenizer->encode("  a   b "), ElementsAre(6, 3, 5));
  EXPECT_THAT(tokenizer->encode("   "), ElementsAre());
  EXPECT_THAT(load(small(number(3, 0) + number(4, 1)))->encode("ab"), ElementsAre(7));
}

TEST(SentencePiece, FallsBackToBytes) {
  std::string model = small();
  for (int byte = 0; byte < 256; ++byte) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    model += piece({'<', '0', 'x', kHex[byte / 16], kHex[byte % 16], '>'}, 0, PieceType::byte);
  }
  const auto tokenizer = load(model + text(2, number(3, 2) + number(35, 1)));
  const std::vector<TokenId> ids = tokenizer->encode("\xC3\xA9");
  EXPECT_THAT(ids, ElementsAre(3, 10 + 0xC3, 10 + 0xA9));
  EXPECT_EQ(tokenizer->decode(ids), "\xC3\xA9");
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{10 + 0xC3, 4, 10 + 0xA9}),
            "\xEF\xBF\xBD"
            "a"
            "\xEF\xBF\xBD");
  EXPECT_THROW(load(small() + text(2, number(3, 2) + number(35, 1))), BadInput);
}

// "ab" is unused: it may lead to "▁ab", and alone falls back to its parts.
TEST(SentencePiece, TakesUnusedPiecesOnlyAsSteps) {
  SentencePieceModel model = read(small());
  model.pieces[7].type = PieceType::unused;
  const auto tokenizer = make_sentencepiece(model, "test.model");
  EXPECT_THAT(tokenizer->encode("ab"), ElementsAre(8));
  EXPECT_THAT(tokenizer->encode("aab"), ElementsAre(6, 4, 5));
}

TEST(SentencePiece, RefusesWhatItDoesNotRead) {
  EXPECT_THROW(load(small() + text(2, number(3, 1))), BadInput);  // Unigram
  EXPECT_THROW(load(small() + piece("q", NAN, PieceType::normal)), BadInput);
  EXPECT_THROW(load(small() + piece("q", 0, static_cast<PieceType>(9))), BadInput);
  EXPECT_THROW(load(small() + piece("\x82", 0, PieceType::user_defined)), BadInput);
  EXPECT_THROW(load(small(text(2, std::string("\xFF\xFF\xFF\x7F"
                                              "abcd")))),
               BadInput);
  EXPECT_THROW(load(""), BadInput);
}

TEST(SentencePiece, SurvivesEveryTruncationAndEveryByteChanged) {
  const std::string model = small(text(2, std::string("\x08\0\0\0abcdefghij", 14)) + number(4, 1));
  const auto attempt = [](const std::string& bytes) {
    try {
      const auto tokenizer = load(bytes);
      tokenizer->decode(tokenizer->encode("ab <u> \xC3\xA9 b"));
    } catch (const BadInput&) {
    }
  };
  for (std::size_t length = 0; length < model.size(); ++length) attempt(model.substr(0, length));
  for (std::size_t at = 0; at < model.size(); ++at) {
    for (const int change : {0x01, 0x02, 0x04, 0x80, 0xFF}) {
      std::string changed = model;
      changed[at] = static_cast<char>(changed[at] ^ change);
      attempt(changed);
    }
  }
}

}  // namespace
}  // namespace attar::tokenize
