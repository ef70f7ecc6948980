#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/train/training_text.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

// A token a byte; 256 begins, 257 ends.
class Bytes final : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view text, bool) const override {
    return {text.begin(), text.end()};
  }
  std::string decode(std::span<const TokenId>, bool) const override { return {}; }
  std::int64_t vocabulary_size() const override { return 258; }
  std::optional<TokenId> bos() const override { return 256; }
  std::optional<TokenId> eos() const override { return 257; }
  std::optional<TokenId> unknown() const override { return {}; }
  std::optional<TokenId> padding() const override { return {}; }
  bool adds_bos() const override { return true; }
  std::optional<TokenId> id_of(std::string_view) const override { return {}; }
  std::string_view token(TokenId) const override { return {}; }
  bool is_special(TokenId id) const override { return id > 255; }
  std::optional<std::string> chat_template() const override { return {}; }
};

class TrainingText : public ::testing::Test {
 protected:
  std::string file(const std::string& name, std::string_view text) {
    io::write_file(folder.path() / name, text);
    return (folder.path() / name).string();
  }
  io::testing::TemporaryFolder folder;
};

TEST_F(TrainingText, ADocumentIsFramedAndOnlyWhatIsToBeLearntCounts) {
  const std::string lines =
      file("a.jsonl", "{\"text\": \"ab\"}\n\n{\"prompt\": \"q\", \"completion\": \"r\"}");
  const DocumentTokens tokens = read_documents({.paths = {lines}}, Bytes());
  EXPECT_THAT(tokens.ids, ::testing::ElementsAre(256, 'a', 'b', 257, 256, 'q', 'r', 257));
  EXPECT_THAT(tokens.counts, ::testing::ElementsAre(0, 1, 1, 1, 0, 0, 1, 1));
  EXPECT_EQ(tokens.documents, 2);
}

TEST_F(TrainingText, ASeparatorCutsAFile) {
  const DocumentTokens tokens = read_documents(
      {.paths = {file("a.txt", "x--yy--")}, .separator = "--", .end_of_text = false}, Bytes());
  EXPECT_THAT(tokens.ids, ::testing::ElementsAre(256, 'x', 256, 'y', 'y'));
}

TEST_F(TrainingText, RefusesLinesThatAreNoDocumentsAndFilesThatAreNotThere) {
  EXPECT_THROW(read_documents({.paths = {file("a.jsonl", "{\"txt\": 1}")}}, Bytes()), BadInput);
  EXPECT_THROW(read_documents({.paths = {"/nowhere/at/all"}}, Bytes()), IoError);
  EXPECT_THROW(read_documents({}, Bytes()), UsageError);
}

DocumentTokens numbers(int count) {
  DocumentTokens tokens;
  for (int i = 0; i < count; ++i) tokens.ids.push_back(i);
  tokens.counts.assign(tokens.ids.size(), 1);
  return tokens;
}

TEST(TrainingWindows, AnEpochSeesEachWindowOnceInAnOrderOfItsOwn) {
  const TrainingWindows windows(numbers(101), 10, 3, false);
  ASSERT_EQ(windows.count(), 10);
  std::vector<std::vector<std::int64_t>> epochs;
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::vector<std::int64_t> seen;
    for (int step = 0; step < 5; ++step) {
      for (const auto window : windows.batch(epoch * 5 + step, 2).windows) seen.push_back(window);
    }
    EXPECT_EQ(std::set<std::int64_t>(seen.begin(), seen.end()).size(), 10u);
    epochs.push_back(seen);
  }
  EXPECT_NE(epochs[0], epochs[1]);
}

TEST(TrainingWindows, ABatchDependsOnItsStepAloneAndTargetsAreTheNextTokens) {
  const TrainingWindows windows(numbers(101), 10, 3, true), others(numbers(101), 10, 3, true);
  windows.batch(40, 3);
  for (const std::int64_t step : {7, 0, 3}) {
    const Batch a = windows.batch(step, 3), b = others.batch(step, 3);
    EXPECT_TRUE(a.ids.equal(b.ids));
    EXPECT_TRUE(a.targets.equal(a.ids + 1));
  }
}

TEST(TrainingWindows, AShiftCutsEpochsElsewhereAndATokenThatDoesNotCountIsNoTarget) {
  DocumentTokens tokens = numbers(101);
  tokens.counts[50] = 0;
  const TrainingWindows windows(tokens, 10, 3, true);
  std::set<std::int64_t> offsets;
  for (int epoch = 0; epoch < 6; ++epoch) {
    for (int i = 0; i < windows.count(); ++i) {
      const Batch batch = windows.batch(epoch * windows.count() + i, 1);
      offsets.insert(batch.ids[0][0].item<std::int64_t>() % 10);
      EXPECT_FALSE(batch.targets.eq(50).any().item<bool>());
    }
  }
  EXPECT_GT(offsets.size(), 1u);
  EXPECT_THROW(TrainingWindows(numbers(10), 10, 3, true), BadInput);
}

}  // namespace
}  // namespace attar
