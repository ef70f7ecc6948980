// What is kept of a teacher's distribution over the vocabulary: its largest probabilities, or ids
// drawn from it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attar {

struct SparseRow {
  std::vector<std::int32_t> ids;     // distinct
  std::vector<float> probabilities;  // of these ids
};

// The `count` most probable ids, most probable first, ties by the lower id. The rest of 1 is the
// tail (Peng et al. 2025 call it a ghost token).
SparseRow top_probabilities(std::span<const float> logits, std::int64_t count);

// `draws` ids drawn independently, each id with its share of the draws: an unbiased estimate of the
// distribution (Anshumann et al. 2025, arXiv:2503.16870). `row` numbers the draws' random numbers.
SparseRow drawn_probabilities(std::span<const float> logits, std::int64_t draws, std::uint64_t seed,
                              std::uint64_t row);

// Next tokens [R] int64 drawn from what `head` [V, H] predicts from hidden states [R, H]; rows are
// numbered from `first_row` on for their random numbers. Logits are made some rows at a time.
at::Tensor drawn_tokens(const at::Tensor& hidden, const at::Tensor& head, std::uint64_t seed,
                        std::int64_t first_row);

}  // namespace attar
