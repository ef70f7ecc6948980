// Which share of a matrix becomes zero, and the one place where that many are cut.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace attar {

// Unstructured (`of` is 0): a share of all weights. N:M: of every `of` neighbouring inputs of a row
// `keep` stay.
struct SparsityPattern {
  double sparsity = 0.5;
  int keep = 0;
  int of = 0;

  bool in_groups() const { return of > 0; }
  double density() const {
    return in_groups() ? static_cast<double>(keep) / static_cast<double>(of) : 1 - sparsity;
  }
};

// "unstructured", which takes `sparsity`, or "N:M" with 0 < N < M <= 64. Throws UsageError.
SparsityPattern pattern_from(std::string_view text, double sparsity, std::string_view where);
std::string describe(const SparsityPattern& pattern);  // "2:4", "50 %"

// floor(share * count), without losing one to the rounding of the product.
std::int64_t cut_count(double share, std::int64_t count);

// Throws DoesNotFit unless groups of N:M divide the columns.
void check_pattern(const SparsityPattern& pattern, std::int64_t columns, std::string_view where);

// Over what an unstructured share is taken.
enum class CutScope { kMatrix, kRow };

// What stays when the lowest scores are cut: [O, I] bool. Exactly cut_count(sparsity) of the scope,
// or exactly `of - keep` of each group; of equal scores the lowest index goes first.
//   scores  [O, I] float32, finite
at::Tensor keep_best(const at::Tensor& scores, const SparsityPattern& pattern, CutScope scope);

// The same on plain memory, for a part of a matrix: `count` scores, `cut` of them lose their place.
void cut_lowest(const float* scores, std::int64_t count, std::int64_t cut, std::uint8_t* keep);

}  // namespace attar
