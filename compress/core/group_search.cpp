#include "compress/core/group_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "compress/core/errors.h"
#include "compress/linalg/clones.h"

namespace attar {
namespace {

constexpr int kLanes = 16;  // partial sums kept apart, so that the compiler can vectorize

float sum(const float* lanes) {
  double total = 0;
  for (int k = 0; k < kLanes; ++k) total += static_cast<double>(lanes[k]);
  return static_cast<float>(total);
}

struct Moments {  // sums over a group, weighted by cost, q the code
  double one = 0, code = 0, code2 = 0, weight = 0, weight_code = 0;
};

// Grids that are held against one group together: so many sums run side by side that none waits for
// its last addition.
struct Candidates {
  static constexpr int kMost = 8;
  int count = 0;
  float scale[kMost], inverse[kMost], zero[kMost];  // `zero`: where 0 lies, in codes
};

// sum of cost * (nearest grid point - weight)^2 of each.
ATTAR_CLONES
void errors_together(const float* weight, const float* cost, std::int64_t count,
                     const Candidates& candidates, float top, float* errors) {
  float lanes[Candidates::kMost][kLanes] = {};
  for (int c = 0; c < candidates.count; ++c) {
    const float scale = candidates.scale[c], inverse = candidates.inverse[c];
    const float zero = candidates.zero[c];
    std::int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      for (int k = 0; k < kLanes; ++k) {
        const float w = weight[j + k];
        const float code = round_even(clamped(w * inverse + zero, 0.0f, top));
        const float error = (code - zero) * scale - w;
        lanes[c][k] += cost[j + k] * error * error;
      }
    }
    for (; j < count; ++j) {
      const float code = round_even(clamped(weight[j] * inverse + zero, 0.0f, top));
      const float error = (code - zero) * scale - weight[j];
      lanes[c][0] += cost[j] * error * error;
    }
  }
  double totals[Candidates::kMost] = {};
  for (int k = 0; k < kLanes; ++k) {
    for (int c = 0; c < Candidates::kMost; ++c) totals[c] += static_cast<double>(lanes[c][k]);
  }
  for (int c = 0; c < Candidates::kMost; ++c) errors[c] = static_cast<float>(totals[c]);
}

ATTAR_CLONES
void moment_lanes(const float* weight, const float* cost, std::int64_t count, float inverse,
                  float zero, float top, float* lanes) {
  for (std::int64_t j = 0; j < count; ++j) {
    const int k = static_cast<int>(j % kLanes);
    const float code = round_even(clamped(weight[j] * inverse + zero, 0.0f, top));
    const float priced = cost[j] * code;
    lanes[k] += cost[j];
    lanes[kLanes + k] += priced;
    lanes[2 * kLanes + k] += priced * code;
    lanes[3 * kLanes + k] += cost[j] * weight[j];
    lanes[4 * kLanes + k] += priced * weight[j];
  }
}

// Where 0 lies, in codes; a real number for kMinimum.
float center(const GroupGrid& grid, const GroupRule& rule) {
  return rule.zero_point == ZeroPoint::kMinimum ? -grid.zero / grid.scale : grid.zero;
}

// A grid whose parts are rounded to what the file holds. `zero` as in GroupGrid.
GroupGrid stored(float scale, float zero, const GroupRule& rule) {
  const bool real = rule.zero_point == ZeroPoint::kMinimum;
  return {round_scale(scale, rule.scale_type), real ? round_to(zero, rule.scale_type) : zero};
}

Moments moments(const float* weight, const float* cost, std::int64_t count, const GroupGrid& grid,
                const GroupRule& rule) {
  std::array<float, 5 * kLanes> lanes{};
  moment_lanes(weight, cost, count, 1.0f / grid.scale, center(grid, rule), rule.top, lanes.data());
  Moments m;
  m.one = static_cast<double>(sum(lanes.data()));
  m.code = static_cast<double>(sum(lanes.data() + kLanes));
  m.code2 = static_cast<double>(sum(lanes.data() + 2 * kLanes));
  m.weight = static_cast<double>(sum(lanes.data() + 3 * kLanes));
  m.weight_code = static_cast<double>(sum(lanes.data() + 4 * kLanes));
  return m;
}

struct Best {
  GroupGrid grid;
  float error = std::numeric_limits<float>::infinity();
};

struct Group {
  const float* weight;
  const float* cost;
  std::int64_t count;
  const GroupRule& rule;

  bool offer(const GroupGrid& grid, Best& best) const {
    const float error = group_error(weight, cost, count, grid, rule);
    if (!(error < best.error)) return false;
    best = {grid, error};
    return true;
  }

  // Codes fixed, the scale (and the real minimum) of least squares; again while it gains.
  void refine(Best& best) const {
    for (int round = 0; round < 6; ++round) {
      const Moments m = moments(weight, cost, count, best.grid, rule);
      double scale = 0;
      auto zero = static_cast<double>(best.grid.zero);
      if (rule.zero_point == ZeroPoint::kMinimum) {
        const double spread = m.one * m.code2 - m.code * m.code;
        scale = (m.one * m.weight_code - m.weight * m.code) / spread;
        zero = (m.weight - m.code * scale) / m.one;
      } else {
        scale =
            (m.weight_code - zero * m.weight) / (m.code2 - 2 * zero * m.code + zero * zero * m.one);
      }
      if (!std::isfinite(scale) || scale == 0 || !std::isfinite(zero)) return;
      if (!offer(stored(static_cast<float>(scale), static_cast<float>(zero), rule), best)) {
        return;
      }
    }
  }
};

// Offers grids in the order in which they come, some at a time.
class Offers {
 public:
  Offers(const Group& group, Best& best) : group_(group), best_(best) {}
  ~Offers() { compare(); }
  Offers(const Offers&) = delete;
  Offers& operator=(const Offers&) = delete;

  void add(const GroupGrid& grid) {
    const int at = together_.count++;
    grids_[at] = grid;
    together_.scale[at] = grid.scale;
    together_.inverse[at] = 1.0f / grid.scale;
    together_.zero[at] = center(grid, group_.rule);
    if (together_.count == Candidates::kMost) compare();
  }

 private:
  void compare() {
    float errors[Candidates::kMost];
    errors_together(group_.weight, group_.cost, group_.count, together_, group_.rule.top, errors);
    for (int c = 0; c < together_.count; ++c) {
      if (errors[c] < best_.error) best_ = {grids_[c], errors[c]};
    }
    together_.count = 0;
  }

  const Group& group_;
  Best& best_;
  Candidates together_;
  GroupGrid grids_[Candidates::kMost];
};

// Integer zeros: for every scale those between "nothing is cut below" and "nothing above"; of many
// some, evenly spread, and those around the best of them.
void search_integer(const Group& group, float low, float high, Best& best) {
  constexpr float kZeros = 15;  // steps of a scale: all of them up to 4 bits
  const float top = group.rule.top;
  const float full = (high - low) / top;
  float widest = 1;
  {
    Offers offers(group, best);
    for (int i = -1; i <= 22; ++i) {
      const float scale =
          round_scale(full * (1 - 0.02f * static_cast<float>(i)), group.rule.scale_type);
      const float from = clamped(std::floor(top - high / scale), 0.0f, top);
      const float to = clamped(std::ceil(-low / scale), 0.0f, top);
      const float step = std::max(1.0f, std::ceil((to - from) / kZeros));
      widest = std::max(widest, step);
      for (float zero = from; zero <= to; zero += step) offers.add({scale, zero});
    }
  }
  if (widest == 1) return;
  const GroupGrid found = best.grid;
  Offers offers(group, best);
  for (float zero = found.zero - widest + 1; zero < found.zero + widest; ++zero) {
    if (zero >= 0 && zero <= top) offers.add({found.scale, zero});
  }
}

void search_symmetric(const Group& group, float reach, Best& best) {
  const float middle = group.rule.middle();
  Offers offers(group, best);
  for (int i = -1; i <= 40; ++i) {
    const float scale = round_scale(
        reach / (middle - 0.5f) * (1.06f - 0.0125f * static_cast<float>(i)), group.rule.scale_type);
    offers.add({scale, middle});
    offers.add({-scale, middle});
  }
}

void search_minimum(const Group& group, float low, float high, Best& best) {
  constexpr int kSteps = 9;
  const float width = high - low;
  Offers offers(group, best);
  for (int below = 0; below < kSteps; ++below) {
    for (int above = 0; above + below < kSteps + 4 && above < kSteps; ++above) {
      const float from = low + width * 0.03f * static_cast<float>(below);
      const float to = high - width * 0.03f * static_cast<float>(above);
      offers.add(stored((to - from) / group.rule.top, from, group.rule));
    }
  }
}

GroupGrid symmetric_range(float low, float high, const GroupRule& rule) {
  if (!rule.full_range) {
    const float reach = std::max(-low, high);
    return stored(2 * reach / rule.top, rule.middle(), rule);
  }
  const float peak = -low >= high ? low : high;
  return stored(-peak / rule.middle(), rule.middle(), rule);
}

}  // namespace

std::vector<float> column_costs(const at::Tensor& column_weights, std::int64_t columns) {
  std::vector<float> cost(static_cast<std::size_t>(columns), 1.0f);
  if (!column_weights.defined()) return cost;
  require<UsageError>(
      column_weights.numel() == columns && column_weights.scalar_type() == at::kDouble, "grid",
      "column_weights must be float64 [", columns, "], got ", column_weights.sizes());
  const at::Tensor plain = column_weights.contiguous();
  const double* weight = plain.const_data_ptr<double>();
  const double largest = *std::max_element(weight, weight + columns);
  if (!(largest > 0)) return cost;
  for (std::int64_t j = 0; j < columns; ++j) {
    cost[j] = static_cast<float>(std::max(weight[j] / largest, 1e-12));
  }
  return cost;
}

float group_error(const float* weight, const float* cost, std::int64_t count, const GroupGrid& grid,
                  const GroupRule& rule) {
  if (rule.levels != nullptr) {
    double total = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      const auto error =
          static_cast<double>(rule.value(rule.code(weight[j], grid), grid) - weight[j]);
      total += static_cast<double>(cost[j]) * error * error;
    }
    return static_cast<float>(total);
  }
  Candidates one{1, {grid.scale}, {1.0f / grid.scale}, {center(grid, rule)}};
  float errors[Candidates::kMost];
  errors_together(weight, cost, count, one, rule.top, errors);
  return errors[0];
}

namespace {

// The scale of least squares for the codes that `grid` gives; 0 where all of them mean 0.
float scale_of_least_squares(const Group& group, const GroupGrid& grid) {
  double levels = 0, squares = 0;
  for (std::int64_t j = 0; j < group.count; ++j) {
    const auto level = static_cast<double>(
        group.rule.levels->value(group.rule.levels->nearest(group.weight[j] / grid.scale)));
    const double priced = static_cast<double>(group.cost[j]) * level;
    levels += priced * level;
    squares += priced * static_cast<double>(group.weight[j]);
  }
  return levels > 0 ? static_cast<float>(squares / levels) : 0;
}

// The largest magnitude on the largest level (MXFP4: on one of the largest two or three, as OCP
// says); searched: the best of that and of scales around it, then of least squares.
GroupGrid choose_level_scale(const Group& group, float reach) {
  const GroupRule& rule = group.rule;
  const auto zero = static_cast<float>(rule.levels->zero());
  if (reach == 0) return {1, zero};
  Best best;
  best.grid = {rule.power_of_two ? power_of_two_scale(reach)
                                 : round_scale(reach / rule.levels->largest(), rule.scale_type),
               zero};
  if (!rule.search) return best.grid;
  const float from = best.grid.scale;
  best.error = group_error(group.weight, group.cost, group.count, best.grid, rule);
  if (rule.power_of_two) {
    for (const float times : {2.0f, 0.5f}) {
      const float scale = from * times;
      if (std::isnormal(scale)) group.offer({scale, zero}, best);
    }
    return best.grid;
  }
  for (int i = 1; i <= 40; ++i) {
    const float share = 1.06f - 0.0125f * static_cast<float>(i);
    group.offer({round_scale(from * share, rule.scale_type), zero}, best);
  }
  for (int round = 0; round < 6; ++round) {
    const float scale = scale_of_least_squares(group, best.grid);
    if (!(scale > 0) || !std::isfinite(scale)) break;
    if (!group.offer({round_scale(scale, rule.scale_type), zero}, best)) break;
  }
  return best.grid;
}

}  // namespace

GroupGrid choose_group(const float* weight, const float* cost, std::int64_t count,
                       const GroupRule& rule) {
  const auto [smallest, largest] = std::minmax_element(weight, weight + count);
  const bool real_zero = rule.zero_point == ZeroPoint::kMinimum;
  // An integer zero lies within the codes, so 0 is always a grid point and within the range.
  const float low = real_zero ? *smallest : std::min(0.0f, *smallest);
  const float high = real_zero ? *largest : std::max(0.0f, *largest);

  if (rule.levels != nullptr) {
    return choose_level_scale({weight, cost, count, rule}, std::max(-low, high));
  }
  if (low == high) {
    if (rule.zero_point == ZeroPoint::kSymmetric) return stored(1, rule.middle(), rule);
    return stored(1, low, rule);
  }
  const Group group{weight, cost, count, rule};
  Best best;
  if (rule.zero_point == ZeroPoint::kSymmetric) {
    best.grid = symmetric_range(low, high, rule);
  } else {
    const float scale = round_scale((high - low) / rule.top, rule.scale_type);
    // From the range as it is, in double: -low / (high - low) * top may be a tie.
    const double zero = -static_cast<double>(low) * static_cast<double>(rule.top) /
                        (static_cast<double>(high) - static_cast<double>(low));
    best.grid = stored(scale, real_zero ? low : round_even(static_cast<float>(zero)), rule);
  }
  if (!rule.search) return best.grid;

  best.error = group_error(weight, cost, count, best.grid, rule);
  if (rule.zero_point == ZeroPoint::kSymmetric) {
    search_symmetric(group, std::max(-low, high), best);
  } else if (real_zero) {
    search_minimum(group, low, high, best);
  } else {
    search_integer(group, low, high, best);
  }
  group.refine(best);
  return best.grid;
}

}  // namespace attar
