// The multiple-choice knapsack: one choice for every item, least cost within a budget. Solved
// exactly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace attar {

struct Choice {
  std::int64_t bytes = 0;  // >= 0
  double cost = 0;         // finite
};

struct Selection {
  std::vector<std::size_t> chosen;  // [items]: which choice
  std::int64_t bytes = 0;
  double cost = 0;  // of the chosen, added up in the order of the items
};

// The selection of least cost with at most `budget` bytes; of equal ones the smallest, then the one
// whose first differing item has the earlier choice. Dynamic programming over undominated partial
// selections; those that a Lagrange multiplier proves to lead nowhere better than the best rounded
// relaxation are left out, which keeps a few thousand of them. Throws UsageError for an item
// without choices, DoesNotFit when the smallest selection exceeds the budget.
Selection solve_knapsack(std::span<const std::vector<Choice>> items, std::int64_t budget);

}  // namespace attar
