#include "lowrank/factor_config.h"

#include "compress/core/errors.h"

namespace attar {

FactorStorage FactorConfig::storage(std::string_view where) const {
  require<UsageError>(bits != 1, where, "bits must be 0 or in [2, 8], got 1");
  return {type == "f16"    ? at::kHalf
          : type == "bf16" ? at::kBFloat16
                           : at::kFloat,
          bits, group_size};
}

double parameters_of(const LinearShape& shape, std::int64_t rank, const FactorStorage& storage) {
  const auto grid = grid_of(storage, rank, shape.in);
  const double left = grid ? grid->bits_per_weight(rank) / 16 : 1;
  const double right = grid ? grid->bits_per_weight(shape.in) / 16 : 1;
  return static_cast<double>(rank) *
         (left * static_cast<double>(shape.out) + right * static_cast<double>(shape.in)) /
         static_cast<double>(shape.out * shape.in);
}

}  // namespace attar
