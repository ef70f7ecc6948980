#include "lowrank/water_filling.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "compress/core/errors.h"

namespace attar {
namespace {

// A state that a layer may be in.
struct Option {
  std::int64_t rank = 0;  // 0: dense
  std::int64_t cost = 0;
  double loss = 0;
};

// Ascending in cost.
std::vector<Option> options_of(const RankChoice& choice, std::int64_t align) {
  const std::int64_t each = choice.out + choice.in, dense = choice.out * choice.in;
  double left = std::accumulate(choice.values.begin(), choice.values.end(), 0.0);
  std::vector<Option> options;
  std::size_t next = 0;
  for (std::int64_t rank = align; rank * each < dense; rank += align) {
    for (; next < choice.values.size() && next < static_cast<std::size_t>(rank); ++next) {
      left -= choice.values[next];
    }
    const bool all = next == choice.values.size();
    options.push_back({rank, rank * each, all ? 0.0 : choice.importance * std::max(0.0, left)});
    if (all) return options;  // more ranks, or the dense layer, would be no better
  }
  options.push_back({0, dense, 0.0});
  return options;
}

// States of the dynamic program, over all layers together: what the choices may take in memory.
constexpr std::int64_t kStates = std::int64_t{1} << 24;

// What costs are counted in: their greatest common divisor, or a multiple of it where that would
// make too many states. Costs are rounded up to units, so that the budget holds all the same.
std::int64_t unit_of(const std::vector<std::vector<Option>>& layers, std::int64_t budget) {
  std::int64_t divisor = 0;
  for (const auto& options : layers) {
    for (const Option& option : options) divisor = std::gcd(divisor, option.cost);
  }
  const auto most = kStates / static_cast<std::int64_t>(layers.size());
  return divisor * std::max<std::int64_t>(1, (budget / divisor + most - 1) / most);
}

// The option of each layer; least[c] is the least loss of the layers so far within c units.
std::vector<std::size_t> cheapest(const std::vector<std::vector<Option>>& layers,
                                  std::int64_t budget) {
  const std::int64_t unit = unit_of(layers, budget);
  const auto states = static_cast<std::size_t>(budget / unit) + 1;
  constexpr double kImpossible = std::numeric_limits<double>::infinity();
  std::vector<double> least(states, 0.0), next(states);
  std::vector<std::vector<std::uint16_t>> chosen;
  const auto units = [&](const Option& option) {
    return static_cast<std::size_t>((option.cost + unit - 1) / unit);
  };
  for (const auto& options : layers) {
    std::fill(next.begin(), next.end(), kImpossible);
    chosen.emplace_back(states, std::uint16_t{0});
    for (std::size_t i = 0; i < options.size(); ++i) {
      for (std::size_t c = units(options[i]); c < states; ++c) {
        const double loss = least[c - units(options[i])] + options[i].loss;
        if (loss >= next[c]) continue;
        next[c] = loss;
        chosen.back()[c] = static_cast<std::uint16_t>(i);
      }
    }
    least.swap(next);
  }
  if (least.back() == kImpossible) return {};
  std::vector<std::size_t> best(layers.size());
  std::size_t left = states - 1;
  for (std::size_t layer = layers.size(); layer-- > 0;) {
    best[layer] = chosen[layer][left];
    left -= units(layers[layer][best[layer]]);
  }
  return best;
}

// With the smallest rank in each layer.
std::int64_t smallest_parameters(std::span<const RankChoice> choices, std::int64_t align) {
  std::int64_t sum = 0;
  for (const RankChoice& choice : choices) {
    sum += std::min(align * (choice.out + choice.in), choice.out * choice.in);
  }
  return sum;
}

void require_room(bool fits, std::int64_t smallest, std::int64_t budget, std::int64_t align) {
  require<DoesNotFit>(fits, "low rank", "the smallest ranks (", align, " a layer) need ", smallest,
                      " parameters, the budget is ", budget, "; raise keep or lower align");
}

}  // namespace

void require_smallest_ranks(std::span<const RankChoice> choices, std::int64_t budget,
                            std::int64_t align) {
  const std::int64_t smallest = smallest_parameters(choices, align);
  require_room(smallest <= budget, smallest, budget, align);
}

RankPlan fill_ranks(std::span<const RankChoice> choices, std::int64_t budget, std::int64_t align) {
  if (choices.empty()) return {};
  std::vector<std::vector<Option>> layers;
  for (const RankChoice& choice : choices) layers.push_back(options_of(choice, align));
  require_smallest_ranks(choices, budget, align);
  const std::vector<std::size_t> best = cheapest(layers, budget);
  require_room(!best.empty(), smallest_parameters(choices, align), budget, align);
  RankPlan plan;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const Option& option = layers[layer][best[layer]];
    plan.ranks.push_back(option.rank);
    plan.parameters += option.cost;
    plan.loss += option.loss;
  }
  return plan;
}

std::int64_t uniform_rank(std::int64_t out, std::int64_t in, double keep, std::int64_t align) {
  const auto wanted = static_cast<std::int64_t>(static_cast<double>(out * in) * keep /
                                                static_cast<double>(out + in));
  const std::int64_t rank = std::max(align, wanted / align * align);
  return rank * (out + in) < out * in ? rank : 0;
}

}  // namespace attar
