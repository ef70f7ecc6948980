#include "quantize/knapsack.h"

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"

namespace attar {
namespace {

using Items = std::span<const std::vector<Choice>>;

// What is cheapest when a byte costs `price`; of equal ones the smallest.
Selection priced(Items items, double price) {
  Selection found;
  for (const std::vector<Choice>& choices : items) {
    std::size_t best = 0;
    const auto worth = [&](std::size_t i) {
      return choices[i].cost + price * static_cast<double>(choices[i].bytes);
    };
    for (std::size_t i = 1; i < choices.size(); ++i) {
      const double a = worth(i), b = worth(best);
      if (a < b || (a == b && choices[i].bytes < choices[best].bytes)) best = i;
    }
    found.chosen.push_back(best);
    found.bytes += choices[best].bytes;
    found.cost += choices[best].cost;
  }
  return found;
}

// The relaxation at (nearly) its best price: `upper` fits, and no selection that fits costs less
// than lower().
struct Relaxation {
  Selection upper;
  double price = 0;
};

Relaxation relax(Items items, std::int64_t budget) {
  Relaxation found{priced(items, 0), 0};
  if (found.upper.bytes <= budget) return found;
  double low = 0, high = 1e-12;
  for (found.upper = priced(items, high); found.upper.bytes > budget; high *= 4) {
    if (high > 1e200) break;
    low = high;
    found.upper = priced(items, 4 * high);
  }
  for (int i = 0; i < 200 && high - low > 1e-15 * high; ++i) {
    const double middle = low + (high - low) / 2;
    Selection tried = priced(items, middle);
    if (tried.bytes > budget) {
      low = middle;
    } else {
      high = middle;
      if (tried.cost <= found.upper.cost) found.upper = std::move(tried);
    }
  }
  found.price = high;
  return found;
}

// Choices for the items so far.
struct Partial {
  std::int64_t bytes;
  double cost;
  std::uint32_t parent;  // among the partials one item earlier
  std::uint32_t choice;
};

bool before(const Partial& a, const Partial& b) {
  if (a.bytes != b.bytes) return a.bytes < b.bytes;
  if (a.cost != b.cost) return a.cost < b.cost;
  return a.parent != b.parent ? a.parent < b.parent : a.choice < b.choice;
}

}  // namespace

Selection solve_knapsack(Items items, std::int64_t budget) {
  std::vector<std::int64_t> least(items.size() + 1, 0);  // bytes of the items from here on
  for (std::size_t i = items.size(); i-- > 0;) {
    require<UsageError>(!items[i].empty(), "knapsack", "item ", i, " has no choices");
    const auto smallest =
        std::min_element(items[i].begin(), items[i].end(),
                         [](const Choice& a, const Choice& b) { return a.bytes < b.bytes; });
    least[i] = least[i + 1] + smallest->bytes;
  }
  require<DoesNotFit>(least[0] <= budget, "knapsack", "the smallest selection takes ", least[0],
                      " bytes, more than the ", budget, " allowed; allow more or smaller formats");
  const Relaxation relaxed = relax(items, budget);
  std::vector<double> rest(items.size() + 1, 0);  // priced cost of the items from here on
  double magnitude = 0;
  for (std::size_t i = items.size(); i-- > 0;) {
    double best = INFINITY;
    for (const Choice& choice : items[i]) {
      best = std::min(best, choice.cost + relaxed.price * static_cast<double>(choice.bytes));
      magnitude += std::abs(choice.cost);
    }
    rest[i] = rest[i + 1] + best;
  }
  // What rounding of these sums may hide.
  magnitude += relaxed.price * static_cast<double>(budget);
  const double slack = 1e-13 * (magnitude + std::abs(relaxed.upper.cost));
  const double worst = relaxed.upper.bytes <= budget ? relaxed.upper.cost + slack : INFINITY;
  std::vector<std::vector<Partial>> kept = {{{0, 0.0, 0, 0}}};
  for (std::size_t item = 0; item < items.size(); ++item) {
    const std::vector<Partial>& from = kept.back();
    std::vector<Partial> grown;
    for (std::uint32_t parent = 0; parent < from.size(); ++parent) {
      for (std::uint32_t choice = 0; choice < items[item].size(); ++choice) {
        const Choice& taken = items[item][choice];
        const Partial next{from[parent].bytes + taken.bytes, from[parent].cost + taken.cost, parent,
                           choice};
        if (next.bytes + least[item + 1] > budget) continue;
        const double bound =
            next.cost + rest[item + 1] - relaxed.price * static_cast<double>(budget - next.bytes);
        if (bound <= worst) grown.push_back(next);
      }
    }
    std::sort(grown.begin(), grown.end(), before);
    std::vector<Partial> undominated;
    for (const Partial& each : grown) {
      if (undominated.empty() || each.cost < undominated.back().cost) undominated.push_back(each);
    }
    kept.push_back(std::move(undominated));
  }
  // More bytes are only kept where they cost less: the last is the best.
  Selection found;
  found.chosen.resize(items.size());
  std::uint32_t at = static_cast<std::uint32_t>(kept.back().size() - 1);
  for (std::size_t item = items.size(); item-- > 0;) {
    const Partial& partial = kept[item + 1][at];
    found.chosen[item] = partial.choice;
    at = partial.parent;
  }
  for (std::size_t item = 0; item < items.size(); ++item) {
    found.bytes += items[item][found.chosen[item]].bytes;
    found.cost += items[item][found.chosen[item]].cost;
  }
  return found;
}

}  // namespace attar
