// How many ranks each layer keeps when all of them share one budget.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace attar {

// One layer to decide about. Rank r costs r (out + in) parameters; the layer left dense costs
// out * in.
struct RankChoice {
  std::int64_t out = 0;
  std::int64_t in = 0;
  std::vector<double> values;  // what each direction contributes, descending (OutputPca::values)
  double importance = 1;       // of a unit of `values` against other layers'
};

struct RankPlan {
  std::vector<std::int64_t> ranks;  // one a choice, multiples of `align`; 0: the layer stays dense
  std::int64_t parameters = 0;      // of all layers together, at most the budget
  double loss = 0;                  // sum of importance * dropped values
};

// Ranks that lose least within `budget` parameters: every layer may have the ranks align, 2 align,
// ... as long as they cost less than the dense layer (break-even), or stay dense. Where losses fall
// off smoothly this is the level to which water would rise in all spectra, counted a parameter; the
// jump to a dense layer, which ends its loss at once, makes it a knapsack, solved exactly by
// dynamic programming (costs are counted in coarser units beyond 16 M states). Of equal plans the
// one with the smaller ranks first.
//
// Throws DoesNotFit when not even the smallest ranks fit. A layer without an aligned rank below
// break-even stays dense.
RankPlan fill_ranks(std::span<const RankChoice> choices, std::int64_t budget, std::int64_t align);

// Throws as fill_ranks does when not even the smallest ranks fit, which shapes alone tell: `values`
// may be empty.
void require_smallest_ranks(std::span<const RankChoice> choices, std::int64_t budget,
                            std::int64_t align);

// The rank whose factors cost `keep` of the dense layer, rounded down to `align` (at least align);
// 0 when that is not below break-even.
std::int64_t uniform_rank(std::int64_t out, std::int64_t in, double keep, std::int64_t align);

}  // namespace attar
