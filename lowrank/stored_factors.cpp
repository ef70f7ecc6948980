#include "lowrank/stored_factors.h"

#include <ATen/TensorOperators.h>

#include "compress/core/grid.h"
#include "lowrank/refit.h"

namespace attar {
namespace {

constexpr double kTiny = 1e-9;  // damping that only keeps a solve well posed

QuantizedWeight on_grid(const at::Tensor& values, const QuantScheme& scheme,
                        const at::Tensor& column_weights) {
  const at::Tensor plain = values.to(at::kFloat);
  return quantize_to_grid(plain, choose_grid(plain, scheme, {.search = true}, column_weights));
}

}  // namespace

std::optional<QuantScheme> grid_of(const FactorStorage& storage, std::int64_t rank,
                                   std::int64_t columns) {
  if (storage.bits == 0) return std::nullopt;
  std::int64_t group = storage.group_size;
  while (group > 1 && (rank % group != 0 || columns % group != 0)) group /= 2;
  return QuantScheme{storage.bits, group > 1 ? group : 0, ZeroPoint::kSymmetric};
}

LowRankWeight stored(const Factors& factors, const at::Tensor& wanted, const at::Tensor& gram,
                     const FactorStorage& storage) {
  const std::int64_t rank = factors.right.size(0);
  const auto scheme = rank == 0 ? std::nullopt : grid_of(storage, rank, factors.right.size(1));
  if (!scheme) {
    return {factors.left.to(storage.type), factors.right.to(storage.type)};
  }
  const Weight right = on_grid(factors.right, *scheme, gram.diagonal());
  const at::Tensor values = dense(right).to(at::kDouble);
  const Factors refitted = refit_left({factors.left, values}, wanted.mm(gram), gram, kTiny);
  const at::Tensor seen = (values.mm(gram) * values).sum(1);  // diag(right gram right^T)
  const Weight left = on_grid(refitted.left, *scheme, seen);
  return {dense(left), dense(right), stored_bytes(left) + stored_bytes(right)};
}

}  // namespace attar
