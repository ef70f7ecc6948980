#include "compress/train/sparse_targets.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/random.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

constexpr std::int64_t kRows = 256;  // whose logits are held at a time

double log_sum_exp(std::span<const float> logits) {
  double top = -INFINITY, sum = 0;
  for (const float x : logits) top = std::max(top, static_cast<double>(x));
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

}  // namespace

SparseRow top_probabilities(std::span<const float> logits, std::int64_t count) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  const auto kept = std::min<std::ptrdiff_t>(count, static_cast<std::ptrdiff_t>(order.size()));
  std::nth_element(order.begin(), order.begin() + kept - 1, order.end(), before);
  order.resize(static_cast<std::size_t>(kept));
  std::sort(order.begin(), order.end(), before);
  const double total = log_sum_exp(logits);
  SparseRow row;
  for (const std::int32_t id : order) {
    row.ids.push_back(id);
    row.probabilities.push_back(static_cast<float>(
        std::exp(static_cast<double>(logits[static_cast<std::size_t>(id)]) - total)));
  }
  return row;
}

SparseRow drawn_probabilities(std::span<const float> logits, std::int64_t draws, std::uint64_t seed,
                              std::uint64_t row) {
  const CounterRandom random(seed, "teacher.draws", row);
  std::vector<double> places;
  for (std::int64_t i = 0; i < draws; ++i) {
    places.push_back(random.uniform(static_cast<std::uint64_t>(i)));
  }
  std::sort(places.begin(), places.end());
  const double total = log_sum_exp(logits);
  SparseRow result;
  double sum = 0;
  std::size_t next = 0;
  for (std::size_t id = 0; id < logits.size() && next < places.size(); ++id) {
    sum += std::exp(static_cast<double>(logits[id]) - total);
    // The last id takes what rounding leaves of 1.
    std::int64_t hits = 0;
    while (next < places.size() && (places[next] < sum || id + 1 == logits.size())) ++next, ++hits;
    if (hits == 0) continue;
    result.ids.push_back(static_cast<std::int32_t>(id));
    result.probabilities.push_back(
        static_cast<float>(static_cast<double>(hits) / static_cast<double>(draws)));
  }
  return result;
}

at::Tensor drawn_tokens(const at::Tensor& hidden, const at::Tensor& head, std::uint64_t seed,
                        std::int64_t first_row) {
  const std::int64_t vocabulary = head.size(0);
  at::Tensor tokens = at::empty({hidden.size(0)}, at::kLong);
  auto* out = tokens.mutable_data_ptr<std::int64_t>();
  for (std::int64_t first = 0; first < hidden.size(0); first += kRows) {
    const std::int64_t rows = std::min(kRows, hidden.size(0) - first);
    const at::Tensor logits = linalg::product(hidden.narrow(0, first, rows), head);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::span row(logits.const_data_ptr<float>() + r * vocabulary,
                          static_cast<std::size_t>(vocabulary));
      const auto number = static_cast<std::uint64_t>(first_row + first + r);
      out[first + r] = drawn_probabilities(row, 1, seed, number).ids.front();
    }
  }
  return tokens;
}

}  // namespace attar
