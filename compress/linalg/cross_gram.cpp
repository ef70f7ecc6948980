#include "compress/linalg/cross_gram.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/linalg/gram.h"
#include "compress/linalg/product.h"

namespace attar::linalg {
namespace {

constexpr std::int64_t kStep = GramAccumulator::kStepTokens;

bool is_finite(const float* row, std::int64_t count) {
  float sum = 0;  // a NaN or an infinity times 0 is NaN, and stays
  for (std::int64_t j = 0; j < count; ++j) sum += row[j] * 0.0f;
  return sum == 0;
}

void copy_rows(const float* from, std::int64_t stride, std::int64_t count, std::int64_t columns,
               float* to) {
  for (std::int64_t t = 0; t < count; ++t) {
    std::copy_n(from + t * stride, columns, to + t * columns);
  }
}

at::Tensor unit_rows(const at::Tensor& rows, std::int64_t columns, std::string_view what) {
  require(rows.dim() == 2 && rows.size(1) == columns && rows.scalar_type() == at::kFloat,
          "cross gram", what, " rows must be float32 [tokens, ", columns, "], got ", rows.sizes(),
          " of ", c10::toString(rows.scalar_type()), "; flatten batches and convert first");
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

std::int64_t row_stride(const at::Tensor& rows) {
  return rows.size(0) == 1 ? rows.size(1) : rows.stride(0);
}

}  // namespace

CrossAccumulator::CrossAccumulator(std::int64_t dense_columns, std::int64_t columns)
    : dense_columns_(dense_columns), columns_(columns) {
  require(dense_columns > 0 && columns > 0 && dense_columns < (1 << 20) && columns < (1 << 20),
          "cross gram", "columns must be in [1, 2^20), got ", dense_columns, " and ", columns,
          "; check the shape of the layer's weight");
}

void CrossAccumulator::begin() {
  if (!total_.defined()) total_ = at::zeros({dense_columns_, columns_}, at::kDouble);
}

void CrossAccumulator::add(const at::Tensor& dense, const at::Tensor& changed) {
  const at::Tensor a = unit_rows(dense, dense_columns_, "dense");
  const at::Tensor b = unit_rows(changed, columns_, "changed");
  require(a.size(0) == b.size(0), "cross gram", "both sides must hold the same tokens, got ",
          a.size(0), " and ", b.size(0), "; give the same batch to both");
  const std::int64_t stride_a = row_stride(a), stride_b = row_stride(b), count = a.size(0);
  const float* data_a = a.const_data_ptr<float>();
  const float* data_b = b.const_data_ptr<float>();
  for (std::int64_t done = 0; done < count;) {
    const float* from_a = data_a + done * stride_a;
    const float* from_b = data_b + done * stride_b;
    if (pending_count_ == 0 && count - done >= kStep) {
      take_step(from_a, stride_a, from_b, stride_b, kStep);
      done += kStep;
      continue;
    }
    pending_dense_.resize(static_cast<std::size_t>(kStep * dense_columns_));
    pending_changed_.resize(static_cast<std::size_t>(kStep * columns_));
    const std::int64_t part = std::min(count - done, kStep - pending_count_);
    copy_rows(from_a, stride_a, part, dense_columns_,
              pending_dense_.data() + pending_count_ * dense_columns_);
    copy_rows(from_b, stride_b, part, columns_,
              pending_changed_.data() + pending_count_ * columns_);
    pending_count_ += part;
    done += part;
    if (pending_count_ == kStep) {
      take_step(pending_dense_.data(), dense_columns_, pending_changed_.data(), columns_, kStep);
      pending_count_ = 0;
    }
  }
}

// A token that is left out is zero on both sides in copies, so that later ones keep their place.
void CrossAccumulator::take_step(const float* dense, std::int64_t dense_stride,
                                 const float* changed, std::int64_t stride, std::int64_t count) {
  std::vector<std::int64_t> broken;
  for (std::int64_t t = 0; t < count; ++t) {
    if (!is_finite(dense + t * dense_stride, dense_columns_) ||
        !is_finite(changed + t * stride, columns_)) {
      broken.push_back(t);
    }
  }
  std::vector<float> clean_dense, clean_changed;
  if (!broken.empty()) {
    clean_dense.resize(static_cast<std::size_t>(count * dense_columns_));
    clean_changed.resize(static_cast<std::size_t>(count * columns_));
    copy_rows(dense, dense_stride, count, dense_columns_, clean_dense.data());
    copy_rows(changed, stride, count, columns_, clean_changed.data());
    for (const std::int64_t t : broken) {
      std::fill_n(clean_dense.data() + t * dense_columns_, dense_columns_, 0.0f);
      std::fill_n(clean_changed.data() + t * columns_, columns_, 0.0f);
    }
    dense = clean_dense.data();
    changed = clean_changed.data();
    dense_stride = dense_columns_;
    stride = columns_;
  }
  tokens_ += count;
  dropped_ += static_cast<std::int64_t>(broken.size());
  begin();
  PackedMatrix right(changed, columns_, count, /*turned=*/true, stride);
  right.add_to({dense, dense_stride, dense_columns_, /*turned=*/true}, 0, total_.data_ptr<double>(),
               columns_);
}

CrossGram CrossAccumulator::finish() {
  if (pending_count_ > 0) {
    take_step(pending_dense_.data(), dense_columns_, pending_changed_.data(), columns_,
              pending_count_);
  }
  begin();
  CrossGram result{std::move(total_), tokens_ - dropped_, dropped_};
  total_ = at::Tensor();
  tokens_ = dropped_ = pending_count_ = 0;
  pending_dense_ = {};
  pending_changed_ = {};
  return result;
}

}  // namespace attar::linalg
