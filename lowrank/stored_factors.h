// Factors as they are stored: rounded to a floating type, or to codes on a grid.
#pragma once

#include <optional>

#include "compress/core/weight.h"
#include "lowrank/output_pca.h"

namespace attar {

struct FactorStorage {
  at::ScalarType type = at::kHalf;
  int bits = 0;                  // 2..8: codes with one float16 scale a group; 0: plain values
  std::int64_t group_size = 32;  // halved until it divides rank and columns
};

// Rounds the right factor, refits the left one to what that lost, rounds the left one: the values
// that codes stand for, and the bytes that these take.
//   factors  float64
//   wanted   [m, n] double: what left right should be, under `gram` [n, n]
// Codes are symmetric, their grids searched by what an error costs: the right one's by diag gram,
// the left one's by the energy that its column multiplies.
LowRankWeight stored(const Factors& factors, const at::Tensor& wanted, const at::Tensor& gram,
                     const FactorStorage& storage);

// The grid of such factors; empty when `storage` has no bits.
std::optional<QuantScheme> grid_of(const FactorStorage& storage, std::int64_t rank,
                                   std::int64_t columns);

}  // namespace attar
