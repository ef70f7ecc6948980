#include "compress/linalg/product.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "compress/core/errors.h"
#include "compress/kernels/packed_product/packed_product.h"

namespace attar::linalg {
namespace {

constexpr int kPieces = 3;  // hold any float32
constexpr std::int64_t kPanel = 32;
constexpr std::int64_t kStrip = 2048;  // outputs that are packed at a time

void check(const at::Tensor& matrix, std::string_view what) {
  require(matrix.dim() == 2 && matrix.scalar_type() == at::kFloat &&
              (matrix.stride(1) == 1 || matrix.size(1) <= 1),
          "product", what, " must be a float32 matrix with rows in one piece, got ", matrix.sizes(),
          " of ", c10::toString(matrix.scalar_type()));
}

PackedMatrix::Rows rows_of(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), x.stride(0), x.size(0)};
}

}  // namespace

PackedMatrix::PackedMatrix(const float* values, std::int64_t outputs, std::int64_t inputs,
                           bool turned, std::int64_t stride)
    : outputs_(outputs), inputs_(inputs) {
  const std::int64_t bytes = kernels::packed_bytes(outputs, inputs, kPieces);
  memory_ = at::empty({bytes}, at::kByte);
  auto* weights = memory_.mutable_data_ptr<std::uint8_t>();
  if (outputs % kPanel != 0) {
    const std::int64_t last = kernels::packed_bytes(1, inputs, kPieces);
    std::memset(weights + bytes - last, 0, static_cast<std::size_t>(last));
  }
  kernels::pack_matrix(
      {values, kernels::PackType::f32, 0, outputs, inputs, kPieces, weights, turned, stride});
}

void PackedMatrix::multiply(const Rows& rows, std::int64_t first, const float* bias,
                            const float* added, float* out, std::int64_t out_stride) const {
  const auto* weights =
      memory_.const_data_ptr<std::uint8_t>() + kernels::packed_bytes(first, inputs_, kPieces);
  kernels::PackedProduct call{
      rows.x, rows.stride, rows.count, {weights, inputs_, outputs_ - first, kPieces, bias},
      added,  out,         out_stride};
  call.turned = rows.turned;
  kernels::packed_product(call);
}

void PackedMatrix::add_to(const Rows& rows, std::int64_t first, double* total,
                          std::int64_t total_stride) {
  constexpr std::int64_t kRows = 256;
  const std::int64_t columns = outputs_ - first;
  if (!panel_.defined()) panel_ = at::empty({kRows * outputs_}, at::kFloat);
  auto* panel = panel_.mutable_data_ptr<float>();
  for (std::int64_t row = 0; row < rows.count; row += kRows) {
    const std::int64_t count = std::min(kRows, rows.count - row);
    const float* x = rows.x + (rows.turned ? row : row * rows.stride);
    multiply({x, rows.stride, count, rows.turned}, first, nullptr, nullptr, panel, columns);
    at::parallel_for(0, count, 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        double* sums = total + (row + r) * total_stride;
        for (std::int64_t c = 0; c < columns; ++c)
          sums[c] += static_cast<double>(panel[r * columns + c]);
      }
    });
  }
}

void product_into(at::Tensor out, const at::Tensor& x, const at::Tensor& weight,
                  const at::Tensor& bias) {
  check(x, "x");
  check(out, "out");
  const at::Tensor matrix = weight.contiguous();
  const std::int64_t outputs = matrix.size(0), inputs = matrix.size(1);
  require<std::logic_error>(x.size(1) == inputs, "product", "x has ", x.size(1), " columns and W ",
                            inputs);
  const auto* values = matrix.const_data_ptr<float>();
  const float* shift = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  auto* to = out.mutable_data_ptr<float>();
  for (std::int64_t first = 0; first < outputs; first += kStrip) {
    const PackedMatrix strip(values + first * inputs, std::min(kStrip, outputs - first), inputs);
    strip.multiply(rows_of(x), 0, shift ? shift + first : nullptr, nullptr, to + first,
                   out.stride(0));
  }
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor out = at::empty({x.size(0), weight.size(0)}, at::kFloat);
  product_into(out, x, weight, bias);
  return out;
}

void back_product_into(at::Tensor out, const at::Tensor& back, const at::Tensor& weight) {
  check(back, "back");
  check(out, "out");
  const at::Tensor matrix = weight.contiguous();
  const std::int64_t outputs = matrix.size(0), inputs = matrix.size(1);
  require<std::logic_error>(back.size(1) == outputs, "product", "back has ", back.size(1),
                            " columns for ", outputs, " rows of W");
  if (outputs == 0) out.zero_();
  const auto* values = matrix.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  for (std::int64_t first = 0; first < outputs; first += kStrip) {
    const std::int64_t count = std::min(kStrip, outputs - first);
    const PackedMatrix strip(values + first * inputs, inputs, count, /*turned=*/true);
    const float* from = back.const_data_ptr<float>() + first;
    strip.multiply({from, back.stride(0), back.size(0)}, 0, nullptr, first > 0 ? to : nullptr, to,
                   out.stride(0));
  }
}

at::Tensor back_product(const at::Tensor& back, const at::Tensor& weight) {
  at::Tensor out = at::empty({back.size(0), weight.size(1)}, at::kFloat);
  back_product_into(out, back, weight);
  return out;
}

void outer_product_into(at::Tensor sum, const at::Tensor& back, const at::Tensor& x, bool add) {
  check(back, "back");
  check(x, "x");
  check(sum, "sum");
  const PackedMatrix right(x.const_data_ptr<float>(), x.size(1), x.size(0), /*turned=*/true,
                           x.stride(0));
  auto* to = sum.mutable_data_ptr<float>();
  right.multiply({back.const_data_ptr<float>(), back.stride(0), back.size(1), /*turned=*/true}, 0,
                 nullptr, add ? to : nullptr, to, sum.stride(0));
}

at::Tensor outer_product(const at::Tensor& back, const at::Tensor& x) {
  at::Tensor sum = at::empty({back.size(1), x.size(1)}, at::kFloat);
  outer_product_into(sum, back, x, /*add=*/false);
  return sum;
}

}  // namespace attar::linalg
