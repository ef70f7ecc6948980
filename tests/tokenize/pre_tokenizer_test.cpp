#include "compress/tokenize/pre_tokenizer.h"

#include <gmock/gmock.h>

namespace attar::tokenize {
namespace {

using testing::ElementsAre;

std::vector<std::string> run(const char* json, const std::string& text) {
  const auto parsed = nlohmann::json::parse(json);
  std::vector<Piece> pieces = {{text, true}};
  read_pre_tokenizer({parsed, "test"})(pieces);
  std::vector<std::string> texts;
  for (const Piece& piece : pieces) texts.push_back(piece.text);
  return texts;
}

std::vector<std::string> dashes(SplitBehavior behavior, bool invert = false) {
  const std::string text = "a--b";
  std::vector<std::string> parts;
  for (const Span& span : split_at(text, {{1, 2}, {2, 3}}, behavior, invert)) {
    parts.push_back(text.substr(span.begin, span.end - span.begin));
  }
  return parts;
}

TEST(SplitAt, KeepsDelimitersAsTheBehaviorSays) {
  EXPECT_THAT(dashes(SplitBehavior::removed), ElementsAre("a", "b"));
  EXPECT_THAT(dashes(SplitBehavior::isolated), ElementsAre("a", "-", "-", "b"));
  EXPECT_THAT(dashes(SplitBehavior::merged_with_previous), ElementsAre("a-", "-", "b"));
  EXPECT_THAT(dashes(SplitBehavior::merged_with_next), ElementsAre("a", "-", "-b"));
  EXPECT_THAT(dashes(SplitBehavior::contiguous), ElementsAre("a", "--", "b"));
  EXPECT_THAT(dashes(SplitBehavior::removed, true), ElementsAre("-", "-"));
}

TEST(Metaspace, MarksSpacesAndTheStart) {
  EXPECT_THAT(
      run(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})", "a  b"),
      ElementsAre("_a", "_", "_b"));
  EXPECT_THAT(run(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never",
                      "split": false})",
                  "a b"),
              ElementsAre("a_b"));
  EXPECT_THAT(run(R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})", "a b"),
              ElementsAre("a", "_b"));
}

TEST(ByteLevel, SpellsBytesInItsAlphabet) {
  EXPECT_THAT(run(R"({"type": "ByteLevel", "add_prefix_space": true})", "\xC3\xA9 \n"),
              ElementsAre("\xC4\xA0\xC3\x83\xC2\xA9", "\xC4\xA0\xC4\x8A"));
}

TEST(Sequence, SplitsDigitsBeforeWords) {
  EXPECT_THAT(run(R"({"type": "Sequence", "pretokenizers": [
                      {"type": "Digits", "individual_digits": true},
                      {"type": "WhitespaceSplit"}]})",
                  "a12 b"),
              ElementsAre("a", "1", "2", "b"));
}

}  // namespace
}  // namespace attar::tokenize
