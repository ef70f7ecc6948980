// X^T X and the column statistics of activations that arrive in pieces.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attar::linalg {

// What is kept of all inputs of a linear layer. A row that holds a NaN or an infinity counts in
// `dropped` and in nothing else.
struct GramStatistics {
  at::Tensor gram;          // [n, n] double, symmetric: sum of x x^T (not divided by tokens)
  at::Tensor sum;           // [n] double: sum of x
  at::Tensor sum_absolute;  // [n] double: sum of |x|
  at::Tensor sum_squares;   // [n] double: sum of x^2
  at::Tensor max_absolute;  // [n] double
  std::int64_t tokens = 0;
  std::int64_t dropped = 0;

  at::Tensor mean_absolute() const;  // [n] double
};

// The statistics of two halves of a text, put together. Equal to those of the whole text to the
// bit when the first half ends on a multiple of GramAccumulator::kStepTokens and the fp64 sums are
// exact, and to a few units of fp64 otherwise.
GramStatistics merge(const GramStatistics& first, const GramStatistics& second);

// Adds rows up. Products run in float32 over fixed steps of tokens and are added in float64: how a
// caller cuts the rows into batches, and how many threads there are, changes no bit.
class GramAccumulator {
 public:
  static constexpr std::int64_t kStepTokens = 1024;  // tokens of one product

  explicit GramAccumulator(std::int64_t columns);

  // rows [T, n] float32 with unit column stride (any row stride). Not kept.
  void add(const at::Tensor& rows);

  // Takes what came so far and leaves the accumulator empty.
  GramStatistics finish();

  std::int64_t columns() const { return columns_; }
  std::int64_t tokens() const { return tokens_; }

 private:
  void add_step(const float* rows, std::int64_t count, std::int64_t stride);
  void take_step(const float* rows, std::int64_t count, std::int64_t stride);
  void reset();
  void begin();  // makes room for the sums if there is none yet

  std::int64_t columns_;
  std::int64_t tokens_ = 0;         // seen, dropped ones included
  std::int64_t dropped_ = 0;        //
  std::int64_t pending_count_ = 0;  // rows in pending_
  std::vector<float> pending_;      // [kStepTokens, n]: rows that do not fill a step yet
  GramStatistics total_;
};

}  // namespace attar::linalg
