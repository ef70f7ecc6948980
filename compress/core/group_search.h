// The best grid of one group of weights, and the error of a grid. Each call works on plain arrays
// of one row, so callers run rows in parallel.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/core/group_rule.h"

namespace attar {

// Column weights as costs of choose_group: float32, relative to the largest, none of them 0.
std::vector<float> column_costs(const at::Tensor& column_weights, std::int64_t columns);

// Chooses the grid of a group.
//   weight [count] finite, cost [count] >= 0: price of a squared error in each column
GroupGrid choose_group(const float* weight, const float* cost, std::int64_t count,
                       const GroupRule& rule);

// sum of cost * (nearest grid point - weight)^2.
float group_error(const float* weight, const float* cost, std::int64_t count, const GroupGrid& grid,
                  const GroupRule& rule);

}  // namespace attar
