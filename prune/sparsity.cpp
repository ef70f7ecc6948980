#include "prune/sparsity.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <vector>

#include "compress/core/errors.h"

namespace attar {
namespace {

int whole_number(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

}  // namespace

SparsityPattern pattern_from(std::string_view text, double sparsity, std::string_view where) {
  if (text == "unstructured") {
    require<UsageError>(sparsity >= 0 && sparsity < 1, where, "sparsity must be in [0, 1), got ",
                        sparsity);
    return {.sparsity = sparsity};
  }
  const std::size_t colon = text.find(':');
  SparsityPattern pattern;
  if (colon != std::string_view::npos) {
    pattern.keep = whole_number(text.substr(0, colon));
    pattern.of = whole_number(text.substr(colon + 1));
  }
  require<UsageError>(pattern.keep > 0 && pattern.keep < pattern.of && pattern.of <= 64, where,
                      "pattern must be 'unstructured' or N:M with 0 < N < M <= 64, got '", text,
                      "'; 2:4 is what hardware knows");
  pattern.sparsity = 1 - pattern.density();
  return pattern;
}

std::string describe(const SparsityPattern& pattern) {
  if (pattern.in_groups()) return std::to_string(pattern.keep) + ":" + std::to_string(pattern.of);
  std::ostringstream out;
  out << std::round(1000 * pattern.sparsity) / 10 << " %";
  return out.str();
}

std::int64_t cut_count(double share, std::int64_t count) {
  const auto cut = static_cast<std::int64_t>(std::floor(share * static_cast<double>(count) + 1e-6));
  return std::clamp<std::int64_t>(cut, 0, count);
}

void check_pattern(const SparsityPattern& pattern, std::int64_t columns, std::string_view where) {
  require<DoesNotFit>(!pattern.in_groups() || columns % pattern.of == 0, where, "groups of ",
                      pattern.of, " must divide the input features, got ", columns,
                      "; skip this layer, or choose another pattern");
}

void cut_lowest(const float* scores, std::int64_t count, std::int64_t cut, std::uint8_t* keep) {
  std::fill_n(keep, count, std::uint8_t{1});
  if (cut <= 0) return;
  constexpr std::int64_t kSmall = 64;  // a group of N:M: no memory is asked for
  std::array<std::int64_t, kSmall> few;
  std::vector<std::int64_t> many;
  if (count > kSmall) many.resize(static_cast<std::size_t>(count));
  std::int64_t* order = count > kSmall ? many.data() : few.data();
  std::iota(order, order + count, 0);
  if (cut < count) {
    std::nth_element(order, order + cut - 1, order + count, [&](std::int64_t a, std::int64_t b) {
      return scores[a] != scores[b] ? scores[a] < scores[b] : a < b;
    });
  }
  for (std::int64_t k = 0; k < cut; ++k) keep[order[k]] = 0;
}

at::Tensor keep_best(const at::Tensor& scores, const SparsityPattern& pattern, CutScope scope) {
  require<UsageError>(scores.dim() == 2 && scores.scalar_type() == at::kFloat, "sparsity",
                      "scores must be float32 [outputs, inputs], got ", scores.sizes());
  const at::Tensor plain = scores.contiguous();
  const std::int64_t rows = plain.size(0), columns = plain.size(1);
  check_pattern(pattern, columns, "sparsity");
  at::Tensor keep = at::empty({rows, columns}, at::kByte);
  const float* score = plain.const_data_ptr<float>();
  auto* out = keep.data_ptr<std::uint8_t>();
  if (!pattern.in_groups() && scope == CutScope::kMatrix) {
    cut_lowest(score, rows * columns, cut_count(pattern.sparsity, rows * columns), out);
    return keep.to(at::kBool);
  }
  const std::int64_t part = pattern.in_groups() ? pattern.of : columns;
  const std::int64_t cut =
      pattern.in_groups() ? pattern.of - pattern.keep : cut_count(pattern.sparsity, columns);
  at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * columns; i < end * columns; i += part) {
      cut_lowest(score + i, part, cut, out + i);
    }
  });
  return keep.to(at::kBool);
}

}  // namespace attar
