// The sweep of Optimal Brain Surgeon over the columns of a matrix: fix a column, move its error
// onto the columns still free. What fixing means (rounding, zeroing, both) is the caller's; GPTQ
// and SparseGPT are the same sweep.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "compress/linalg/blas.h"

namespace attar::linalg {

// One row inside of one block of columns.
struct SweepRow {
  float* weight;        // [width]: as updated so far
  const float* upper;   // [width, width] part of U
  std::int64_t stride;  // from a row of `upper` to the next
  float* errors;        // [width], to be filled: (w_i - fixed_i) / U_ii
};

// The matrix under work, its columns in processing order, and U.
class ColumnSweep {
 public:
  // weight [O, I] float32 (copied); upper [I, I] float32 with (damped H)^-1 = U^T U in `order`.
  ColumnSweep(const at::Tensor& weight, at::Tensor upper, std::vector<std::int64_t> order,
              std::int64_t block_size)
      : rows_(weight.size(0)),
        columns_(weight.size(1)),
        upper_(std::move(upper)),
        order_(std::move(order)),
        working_(at::empty({rows_, columns_}, at::kFloat)),
        errors_(at::empty({rows_, block_size}, at::kFloat)) {
    const at::Tensor source = weight.contiguous();
    const float* from = source.const_data_ptr<float>();
    float* to = working();
    at::parallel_for(0, rows_, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t k = 0; k < columns_; ++k) {
          to[r * columns_ + k] = from[r * columns_ + order_[k]];
        }
      }
    });
  }

  // Fixes the columns [begin, end) of all rows, end - begin <= block_size: `fix(first, last,
  // row_of)` is called for ranges of rows in parallel; row_of(r) gives a row's part. `fix` fills
  // the errors and moves them within the block; the columns after the block are updated here.
  template <class Fix>
  void block(std::int64_t begin, std::int64_t end, const Fix& fix) {
    const std::int64_t width = end - begin;
    const float* upper = upper_.const_data_ptr<float>();
    float* errors = errors_.data_ptr<float>();
    const auto row_of = [&](std::int64_t r) {
      return SweepRow{working() + r * columns_ + begin, upper + begin * columns_ + begin, columns_,
                      errors + r * width};
    };
    at::parallel_for(0, rows_, 32,
                     [&](std::int64_t first, std::int64_t last) { fix(first, last, row_of); });
    if (end == columns_) return;
    const auto side = static_cast<int>(columns_);
    gemm(false, false, static_cast<int>(rows_), static_cast<int>(columns_ - end),
         static_cast<int>(width), -1.0f, errors, static_cast<int>(width),
         upper + begin * columns_ + end, side, 1.0f, working() + end, side);
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  const std::vector<std::int64_t>& order() const { return order_; }
  const float* upper() const { return upper_.const_data_ptr<float>(); }
  // [O, I] in processing order: fixed columns hold what stood there when they were fixed.
  float* working() { return working_.data_ptr<float>(); }

 private:
  std::int64_t rows_;
  std::int64_t columns_;
  at::Tensor upper_;
  std::vector<std::int64_t> order_;
  at::Tensor working_;  // [O, I] float32
  at::Tensor errors_;   // [O, block] float32
};

}  // namespace attar::linalg
