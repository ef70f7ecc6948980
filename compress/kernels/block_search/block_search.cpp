#include "compress/kernels/block_search/block_search.h"

#include <stdexcept>
#include <string>

namespace attar::kernels {
namespace {

void check(const char* where, int size) {
  if (size < 1 || size > 32) {
    throw std::invalid_argument(std::string("[") + where + "] size must be in [1, 32], got " +
                                std::to_string(size));
  }
}

}  // namespace

void block_search(const BlockSearch& call, std::int64_t groups, const Variant& variant) {
  check("block_search", call.size);
  variant.block_search(call, 0, groups);
}

void group_prices(const GroupPrices& call, std::int64_t groups, const Variant& variant) {
  check("group_prices", call.size);
  variant.group_prices(call, 0, groups);
}

}  // namespace attar::kernels
