#include "eval/few_shot.h"

#include "compress/core/errors.h"

namespace attar::eval {

FewShotSampler::FewShotSampler(std::int64_t rows, std::int64_t count, bool draws_one_more,
                               std::uint64_t seed)
    : rows_(rows), count_(count), draws_one_more_(draws_one_more), random_(seed) {
  const std::int64_t needed = count + (draws_one_more ? 1 : 0);
  require<UsageError>(count == 0 || needed <= rows, "eval", "shots=", count, " needs ", needed,
                      " example rows, but there are ", rows, "; ask for fewer shots");
}

std::vector<std::int64_t> FewShotSampler::next(const std::function<bool(std::int64_t)>& is_same) {
  if (count_ == 0) return {};
  std::vector<std::int64_t> chosen;
  for (const std::int64_t row : random_.sample(rows_, count_ + (draws_one_more_ ? 1 : 0))) {
    if (static_cast<std::int64_t>(chosen.size()) == count_) break;
    if (!draws_one_more_ || !is_same(row)) chosen.push_back(row);
  }
  return chosen;
}

}  // namespace attar::eval
