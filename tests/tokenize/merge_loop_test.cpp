#include "compress/tokenize/merge_loop.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace attar::tokenize {
namespace {

using Merges = std::map<std::pair<TokenId, TokenId>, Merge>;

std::vector<Symbol> linked(const std::vector<TokenId>& ids) {
  std::vector<Symbol> symbols;
  for (const TokenId id : ids) append_symbol(symbols, id, 1);
  return symbols;
}

std::vector<TokenId> merged(const std::vector<TokenId>& ids, const Merges& merges,
                            std::int64_t* calls = nullptr) {
  std::vector<Symbol> symbols = linked(ids);
  merge_symbols(symbols, [&](const Symbol& left, const Symbol& right) -> std::optional<Merge> {
    if (calls != nullptr) ++*calls;
    const auto found = merges.find({left.id, right.id});
    return found == merges.end() ? std::nullopt : std::optional(found->second);
  });
  std::vector<TokenId> result;
  for (int i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    result.push_back(symbols[i].id);
  }
  return result;
}

// The obvious loop: look for the best pair over the whole word, join it, start again.
std::vector<TokenId> slowly(std::vector<TokenId> ids, const Merges& merges) {
  while (true) {
    const Merge* best = nullptr;
    std::size_t place = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = merges.find({ids[i], ids[i + 1]});
      if (found == merges.end()) continue;
      if (best != nullptr && found->second.priority >= best->priority) continue;
      best = &found->second;
      place = i;
    }
    if (best == nullptr) return ids;
    ids[place] = best->id;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

// Each pair makes a token of its own here, as in a vocabulary that training made.
TEST(MergeSymbols, EqualsTheObviousLoopOnRandomMerges) {
  std::mt19937 random(5);
  for (int round = 0; round < 400; ++round) {
    Merges merges;
    TokenId next = 3;
    for (int rank = 0; rank < 12; ++rank) {
      const TokenId left = static_cast<TokenId>(random() % next);
      const TokenId right = static_cast<TokenId>(random() % next);
      if (merges.try_emplace({left, right}, Merge{static_cast<double>(rank), next}).second) ++next;
    }
    std::vector<TokenId> ids(1 + random() % 40);
    for (TokenId& id : ids) id = static_cast<TokenId>(random() % 3);
    ASSERT_EQ(merged(ids, merges), slowly(ids, merges)) << "round " << round;
  }
}

TEST(MergeSymbols, JoinsTheLeftmostOfEqualPairs) {
  const Merges merges = {{{0, 0}, {0, 1}}};
  EXPECT_EQ(merged({0, 0, 0}, merges), (std::vector<TokenId>{1, 0}));
}

// n - 1 pairs at the start and two for each of at most n - 1 merges are asked for and queued; what
// is queued is asked for once more when it comes out: 6 (n - 1) in all.
TEST(MergeSymbols, AsksALinearNumberOfTimes) {
  constexpr std::int64_t kLength = 1 << 20;
  Merges merges;
  for (TokenId level = 0; level < 20; ++level) merges[{level, level}] = {1.0 * level, level + 1};
  std::int64_t calls = 0;
  EXPECT_EQ(merged(std::vector<TokenId>(kLength, 0), merges, &calls).size(), 1u);
  EXPECT_LE(calls, 6 * (kLength - 1));
}

TEST(MergeSymbols, LeavesNothingAsNothing) { EXPECT_TRUE(merged({}, {}).empty()); }

}  // namespace
}  // namespace attar::tokenize
