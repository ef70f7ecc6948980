#include "compress/linalg/gram.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/linalg/product.h"

namespace attar::linalg {
namespace {

constexpr std::int64_t kPanel = 256;  // rows of X^T X in one product

at::Tensor zeros(at::IntArrayRef shape) { return at::zeros(shape, at::kDouble); }

bool is_finite(const float* row, std::int64_t count) {
  float sum = 0;  // a NaN or an infinity times 0 is NaN, and stays
  for (std::int64_t j = 0; j < count; ++j) sum += row[j] * 0.0f;
  return sum == 0;
}

// Column statistics of `count` rows, added to the sums. Each column is summed over the step in
// float64, in the order of the rows.
void add_columns(const float* rows, std::int64_t count, std::int64_t stride,
                 GramStatistics& total) {
  const std::int64_t n = total.sum.size(0);
  double* sum = total.sum.data_ptr<double>();
  double* absolute = total.sum_absolute.data_ptr<double>();
  double* squares = total.sum_squares.data_ptr<double>();
  double* largest = total.max_absolute.data_ptr<double>();
  at::parallel_for(0, n, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < count; ++t) {
      const float* row = rows + t * stride;
      for (std::int64_t j = begin; j < end; ++j) {
        const double x = row[j];
        const double magnitude = std::abs(x);
        sum[j] += x;
        absolute[j] += magnitude;
        squares[j] += x * x;
        largest[j] = magnitude > largest[j] ? magnitude : largest[j];
      }
    }
  });
}

}  // namespace

at::Tensor GramStatistics::mean_absolute() const {
  return sum_absolute / static_cast<double>(tokens > 0 ? tokens : 1);
}

GramStatistics merge(const GramStatistics& first, const GramStatistics& second) {
  require(first.gram.sizes() == second.gram.sizes(), "gram",
          "two statistics of different width cannot be merged, got ", first.gram.sizes(), " and ",
          second.gram.sizes(), "; merge statistics of one layer");
  return {first.gram + second.gram,
          first.sum + second.sum,
          first.sum_absolute + second.sum_absolute,
          first.sum_squares + second.sum_squares,
          at::maximum(first.max_absolute, second.max_absolute),
          first.tokens + second.tokens,
          first.dropped + second.dropped};
}

GramAccumulator::GramAccumulator(std::int64_t columns) : columns_(columns) {
  require(columns > 0 && columns < (1 << 20), "gram", "columns must be in [1, 2^20), got ", columns,
          "; check the shape of the layer's weight");
  reset();
}

void GramAccumulator::reset() {
  tokens_ = dropped_ = pending_count_ = 0;
  total_ = {};
}

void GramAccumulator::begin() {
  if (total_.gram.defined()) return;
  total_ = {zeros({columns_, columns_}), zeros({columns_}), zeros({columns_}), zeros({columns_}),
            zeros({columns_})};
}

void GramAccumulator::add(const at::Tensor& rows) {
  require(rows.dim() == 2 && rows.size(1) == columns_ && rows.scalar_type() == at::kFloat, "gram",
          "rows must be float32 [tokens, ", columns_, "], got ", rows.sizes(), " of ",
          c10::toString(rows.scalar_type()), "; flatten batches and convert first");
  if (rows.size(0) == 0) return;
  const at::Tensor strided = rows.stride(1) == 1 ? rows : rows.contiguous();
  const float* data = strided.const_data_ptr<float>();
  const std::int64_t stride = strided.size(0) == 1 ? columns_ : strided.stride(0);
  std::int64_t left = strided.size(0);
  while (left > 0) {
    if (pending_count_ == 0 && left >= kStepTokens) {
      take_step(data, kStepTokens, stride);
      data += kStepTokens * stride;
      left -= kStepTokens;
      continue;
    }
    pending_.resize(static_cast<std::size_t>(kStepTokens * columns_));
    const std::int64_t count = std::min(left, kStepTokens - pending_count_);
    for (std::int64_t t = 0; t < count; ++t) {
      std::copy_n(data + t * stride, columns_, pending_.data() + (pending_count_ + t) * columns_);
    }
    pending_count_ += count;
    data += count * stride;
    left -= count;
    if (pending_count_ == kStepTokens) {
      take_step(pending_.data(), kStepTokens, columns_);
      pending_count_ = 0;
    }
  }
}

// Leaves rows out that are not finite: they are set to zero in a copy, so that later rows keep
// their place in the steps.
void GramAccumulator::take_step(const float* rows, std::int64_t count, std::int64_t stride) {
  std::vector<std::int64_t> broken;
  for (std::int64_t t = 0; t < count; ++t) {
    if (!is_finite(rows + t * stride, columns_)) broken.push_back(t);
  }
  tokens_ += count;
  if (broken.empty()) return add_step(rows, count, stride);
  std::vector<float> clean(static_cast<std::size_t>(count * columns_));
  for (std::int64_t t = 0; t < count; ++t) {
    std::copy_n(rows + t * stride, columns_, clean.data() + t * columns_);
  }
  for (const std::int64_t t : broken) std::fill_n(clean.data() + t * columns_, columns_, 0.0f);
  dropped_ += static_cast<std::int64_t>(broken.size());
  add_step(clean.data(), count, columns_);
}

void GramAccumulator::add_step(const float* rows, std::int64_t count, std::int64_t stride) {
  begin();
  const std::int64_t n = columns_;
  double* gram = total_.gram.data_ptr<double>();
  PackedMatrix right(rows, n, count, /*turned=*/true, stride);
  for (std::int64_t i = 0; i < n; i += kPanel) {
    right.add_to({rows + i, stride, std::min(kPanel, n - i), /*turned=*/true}, i, gram + i * n + i,
                 n);
  }
  add_columns(rows, count, stride, total_);
}

GramStatistics GramAccumulator::finish() {
  if (pending_count_ > 0) take_step(pending_.data(), pending_count_, columns_);
  begin();
  double* gram = total_.gram.data_ptr<double>();
  constexpr std::int64_t kTile = 64;
  const std::int64_t n = columns_;
  for (std::int64_t ib = 0; ib < n; ib += kTile) {
    for (std::int64_t jb = ib; jb < n; jb += kTile) {
      for (std::int64_t i = ib; i < std::min(n, ib + kTile); ++i) {
        for (std::int64_t j = std::max(i + 1, jb); j < std::min(n, jb + kTile); ++j) {
          gram[j * n + i] = gram[i * n + j];
        }
      }
    }
  }
  GramStatistics result = std::move(total_);
  result.tokens = tokens_ - dropped_;
  result.dropped = dropped_;
  reset();
  pending_ = {};
  return result;
}

}  // namespace attar::linalg
