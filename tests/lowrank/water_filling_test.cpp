#include "lowrank/water_filling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "compress/core/errors.h"
#include "compress/core/random.h"

namespace attar {
namespace {

using ::testing::ElementsAre;

// Values that fall off as 1 / (1 + i / length)^2.
RankChoice layer(std::int64_t out, std::int64_t in, double length, double importance = 1) {
  RankChoice choice{out, in, {}, importance};
  for (std::int64_t i = 0; i < std::min(out, in); ++i) {
    const double x = 1 + static_cast<double>(i) / length;
    choice.values.push_back(1 / (x * x));
  }
  return choice;
}

std::int64_t dense_cost(const std::vector<RankChoice>& choices) {
  std::int64_t sum = 0;
  for (const RankChoice& choice : choices) sum += choice.out * choice.in;
  return sum;
}

double loss_of(const RankChoice& choice, std::int64_t rank) {
  if (rank == 0) return 0;
  double loss = 0;
  for (std::size_t i = static_cast<std::size_t>(rank); i < choice.values.size(); ++i) {
    loss += choice.values[i];
  }
  return choice.importance * loss;
}

std::int64_t cost_of(const RankChoice& choice, std::int64_t rank) {
  return rank == 0 ? choice.out * choice.in : rank * (choice.out + choice.in);
}

// Every combination of aligned ranks below break-even, and dense.
double best_loss(const std::vector<RankChoice>& choices, std::int64_t budget, std::int64_t align,
                 std::size_t from = 0) {
  if (from == choices.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  const RankChoice& choice = choices[from];
  const std::int64_t dense = cost_of(choice, 0);
  for (std::int64_t rank = 0; rank * (choice.out + choice.in) < dense; rank += align) {
    const std::int64_t left = budget - cost_of(choice, rank);
    if (left < 0) continue;
    best = std::min(best, loss_of(choice, rank) + best_loss(choices, left, align, from + 1));
  }
  return best;
}

TEST(WaterFilling, IsTheBestOfAllCombinations) {
  const std::vector<RankChoice> choices = {layer(24, 40, 2), layer(32, 32, 9, 2),
                                           layer(40, 24, 30, 0.5), layer(16, 32, 4)};
  for (const double keep : {0.4, 0.5, 0.65, 0.8, 0.95}) {
    const auto budget = static_cast<std::int64_t>(keep * static_cast<double>(dense_cost(choices)));
    const RankPlan plan = fill_ranks(choices, budget, 4);
    const double best = best_loss(choices, budget, 4);
    EXPECT_NEAR(plan.loss, best, 1e-12 * best) << keep;
    EXPECT_LE(plan.parameters, budget) << keep;
  }
}

TEST(WaterFilling, KeepsBudgetAlignmentAndBreakEven) {
  const CounterRandom random(3, "water filling");
  for (std::uint64_t trial = 0; trial < 50; ++trial) {
    std::vector<RankChoice> choices;
    for (std::uint64_t i = 0; i < 6; ++i) {
      const std::uint64_t at = trial * 100 + i * 10;
      choices.push_back(layer(64 + 8 * static_cast<std::int64_t>(random.below(at, 20)),
                              64 + 8 * static_cast<std::int64_t>(random.below(at + 1, 20)),
                              1 + 30 * random.uniform(at + 2), random.uniform(at + 3)));
    }
    const auto budget = static_cast<std::int64_t>((0.5 + 0.5 * random.uniform(trial * 100 + 99)) *
                                                  static_cast<double>(dense_cost(choices)));
    const RankPlan plan = fill_ranks(choices, budget, 8);
    std::int64_t spent = 0;
    double loss = 0;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const std::int64_t rank = plan.ranks[i];
      EXPECT_EQ(rank % 8, 0);
      if (rank > 0) {
        EXPECT_LT(cost_of(choices[i], rank), cost_of(choices[i], 0));
      }
      spent += cost_of(choices[i], rank);
      loss += loss_of(choices[i], rank);
    }
    EXPECT_EQ(spent, plan.parameters);
    EXPECT_LE(spent, budget);
    EXPECT_NEAR(loss, plan.loss, 1e-9);
  }
}

TEST(WaterFilling, BeatsEqualSharesWhenSpectraDiffer) {
  const std::vector<RankChoice> choices = {layer(128, 128, 1), layer(128, 128, 12)};
  const std::int64_t equal = uniform_rank(128, 128, 0.5, 8);
  const RankPlan plan = fill_ranks(choices, 2 * cost_of(choices[0], equal), 8);
  EXPECT_LT(plan.loss, 0.9 * (loss_of(choices[0], equal) + loss_of(choices[1], equal)));
  EXPECT_LT(plan.ranks[0], equal);
}

TEST(WaterFilling, LeavesTheMoreImportantLayerMore) {
  const RankPlan plan =
      fill_ranks(std::vector{layer(128, 128, 3, 1), layer(128, 128, 3, 9)}, 16000, 8);
  EXPECT_LT(plan.ranks[0], plan.ranks[1]);
}

TEST(WaterFilling, WithTheWholeBudgetLeavesEveryLayerDense) {
  const std::vector<RankChoice> choices = {layer(64, 64, 5), layer(96, 32, 50)};
  EXPECT_THAT(fill_ranks(choices, dense_cost(choices), 8).ranks, ElementsAre(0, 0));
}

// Outputs that span 16 directions lose nothing at rank 16, whatever else the budget would pay.
TEST(WaterFilling, SpendsNothingOnDirectionsThatAreNotThere) {
  RankChoice narrow = layer(64, 64, 5);
  narrow.values.resize(16);
  const RankPlan plan = fill_ranks(std::vector{narrow}, 64 * 64, 8);
  EXPECT_THAT(plan.ranks, ElementsAre(16));
  EXPECT_EQ(plan.loss, 0);
}

TEST(WaterFilling, SaysWhenTheBudgetIsTooSmall) {
  EXPECT_THROW(fill_ranks(std::vector{layer(64, 64, 5)}, 1000, 8), DoesNotFit);
}

TEST(UniformRank, IsAlignedAndBelowBreakEvenOrDense) {
  EXPECT_EQ(uniform_rank(576, 576, 0.8, 32), 224);  // 230.4
  EXPECT_EQ(uniform_rank(576, 576, 1.0, 32), 0);    // 288 costs what the layer does
  EXPECT_EQ(uniform_rank(192, 576, 0.1, 32), 32);   // never less than one tile
  EXPECT_EQ(uniform_rank(48, 48, 0.5, 32), 0);      // no tile is below break-even
}

}  // namespace
}  // namespace attar
