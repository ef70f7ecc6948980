// Optimal Brain Surgeon on groups of input columns: what it costs a layer to lose a neuron or a
// head, and how the rest makes up for it (ZipLM, Kurtic et al. 2023, arXiv:2302.04089).
//
// A unit is `width` neighbouring input columns of the consumer: one for a neuron (down), all
// columns of the query heads that share a key-value head for a KV group (o). All in float64.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attar {

struct ObsOptions {
  std::int64_t width = 1;   // columns of a unit
  std::int64_t batch = 32;  // width 1: columns between two updates of H^-1; changes speed only
  double damping = 0.01;    // share of mean(diag H) added to diag H; x10 up to 5 times
};

struct RemovalOrder {
  std::vector<std::int64_t> units;  // in the order in which they go
  // losses[k]: tr(D H D^T) with damped H when the first k have gone and the rest made up for it in
  // the best way, k = 0..units.size().
  std::vector<double> losses;
  double energy = 0;   // tr(W H W^T) with damped H
  double damping = 0;  // what was used
  std::vector<std::string> fallbacks;

  // The units that stay when the first `count` go, ascending.
  std::vector<std::int64_t> kept(std::int64_t count, std::int64_t all) const;
};

// Loss of each unit alone, rho = tr(W_S ((H^-1)_SS)^-1 W_S^T): [units] double.
//   weight   [O, I] double,  inverse  [I, I] double: (damped H)^-1
at::Tensor unit_losses(const at::Tensor& weight, const at::Tensor& inverse, std::int64_t width);

// Takes units away, the cheapest first, each seen by the scores of the next, until `count` have
// gone.
//   weight   [O, I] float32
//   hessian  [I, I] double: sum of x x^T over calibration tokens
// O(I^3 + count * I * (I + O)). Equal scores: the lowest index goes first.
// Throws UsageError for shapes that disagree, NumericRefusal when no damping makes H positive
// definite or a value is not finite.
RemovalOrder removal_order(const at::Tensor& weight, const at::Tensor& hessian, std::int64_t count,
                           const ObsOptions& options = {}, std::string_view where = "obs");

// Columns of the units, ascending: [units * width] int64.
at::Tensor columns_of(const std::vector<std::int64_t>& units, std::int64_t width);

struct Ridge {
  at::Tensor weight;  // [m, n] double
  double damping = 0;
  std::vector<std::string> fallbacks;
};

// The weight of least |W X - Y|^2 + d |W|^2: Y X^T (X X^T + d I)^-1, d = damping * mean(diag).
//   target  [m, n] double: Y X^T,  gram  [n, n] double: X X^T
// Throws NumericRefusal when no damping up to 10^5 times as much helps.
Ridge ridge(const at::Tensor& target, const at::Tensor& gram, double damping,
            std::string_view where = "ridge");

struct Refit {
  at::Tensor weight;   // [O, kept] float32
  double loss = 0;     // |W' X_K - W X_dense|^2 / |W X_dense|^2 on the calibration tokens
  double unrefit = 0;  // the same with the kept columns of W as they are
  double damping = 0;
  std::vector<std::string> fallbacks;
};

// The weight on the kept inputs that comes nearest to what the dense layer gave from dense inputs:
// W' = W (X_dense X_K^T + d I_K) (X_K X_K^T + d I)^-1, which is W where nothing is missing.
//   weight  [O, I_dense] float32
//   dense   [I_dense, I_dense] double: X_dense X_dense^T, for the losses; undefined: not computed
//   cross   [I_dense, I] double: X_dense X^T
//   gram    [I, I] double: X X^T
//   kept    [kept] int64: columns of X that stay; column k of X is column same_as[k] of X_dense
//   more    [O, I] double or undefined: R X^T when W X_dense + R is the target
Refit refit_columns(const at::Tensor& weight, const at::Tensor& dense, const at::Tensor& cross,
                    const at::Tensor& gram, const at::Tensor& kept, const at::Tensor& same_as,
                    double damping, std::string_view where = "refit", const at::Tensor& more = {});

// The cheapest levels that remove `total` in all: errors[l][k] is what layer l loses at level k
// (k units of cost removed, level 0 costs nothing). An exact multiple-choice knapsack; of equal
// sums the one that removes least from the first layers. Throws DoesNotFit when all levels together
// do not reach `total`.
std::vector<std::int64_t> share_out(const std::vector<std::vector<double>>& errors,
                                    std::int64_t total);

}  // namespace attar
