#include "compress/linalg/product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include "compress/core/numerics.h"
#include "compress/linalg/blas.h"

namespace attar::linalg {
namespace {

// Numbers in [-1, 1] without a pattern that a product would see.
at::Tensor waves(at::IntArrayRef shape, double step) {
  const std::int64_t count = shape[0] * (shape.size() > 1 ? shape[1] : 1);
  return at::arange(count, at::kDouble).mul(step).square().sin().reshape(shape).to(at::kFloat);
}

// A chain of `inner` fused products and sums in float32, against float64.
void expect_product(const at::Tensor& got, const at::Tensor& left, const at::Tensor& right) {
  const at::Tensor exact = at::mm(left.to(at::kDouble), right.to(at::kDouble));
  const at::Tensor size = at::mm(left.to(at::kDouble).abs(), right.to(at::kDouble).abs());
  const double unit = 6.0 * static_cast<double>(left.size(1)) * 0x1p-24;  // six pieces on tiles
  EXPECT_TRUE(((got - exact).abs() <= unit * size + 1e-30).all().item<bool>());
}

class Products : public testing::Test {
 protected:
  // More outputs than are packed at a time, and no multiple of a panel.
  static constexpr std::int64_t kRows = 37, kInputs = 70, kOutputs = 2101;
  const at::Tensor x_ = waves({kRows, kInputs}, 0.381), weight_ = waves({kOutputs, kInputs}, 0.391);
  const at::Tensor back_ = waves({kRows, kOutputs}, 0.401), bias_ = waves({kOutputs}, 0.411);
};

TEST_F(Products, AgreeWithFloat64) {
  expect_product(product(x_, weight_), x_, weight_.t());
  expect_product(back_product(back_, weight_), back_, weight_);
  expect_product(outer_product(back_, x_), back_.t(), x_);
  EXPECT_TRUE(product(x_, weight_, bias_).equal(product(x_, weight_) + bias_));
}

TEST_F(Products, AreAddedToWhatIsThere) {
  at::Tensor sum = waves({kOutputs, kInputs}, 0.421);
  const at::Tensor expected = sum + outer_product(back_, x_);
  outer_product_into(sum, back_, x_, /*add=*/true);
  EXPECT_TRUE(sum.equal(expected));
}

TEST_F(Products, RowsOfAWiderMatrixGiveTheSameBits) {
  const at::Tensor wide_x = waves({kRows, kInputs + 9}, 0.431).narrow(1, 3, kInputs);
  at::Tensor wide_out = waves({kRows, kOutputs + 5}, 0.441).narrow(1, 0, kOutputs);
  product_into(wide_out, wide_x, weight_);
  EXPECT_TRUE(wide_out.equal(product(wide_x.contiguous(), weight_)));
}

TEST_F(Products, RowsAloneAndAnyNumberOfThreadsGiveTheSameBits) {
  const int before = threads();
  set_threads(1);
  const at::Tensor whole = product(x_, weight_), back = back_product(back_, weight_);
  const at::Tensor outer = outer_product(back_, x_);
  for (const std::int64_t rows : {1, 5, 36}) {
    EXPECT_TRUE(product(x_.narrow(0, 0, rows), weight_).equal(whole.narrow(0, 0, rows)));
    EXPECT_TRUE(back_product(back_.narrow(0, 0, rows), weight_).equal(back.narrow(0, 0, rows)));
  }
  set_threads(2);
  EXPECT_TRUE(product(x_, weight_).equal(whole));
  EXPECT_TRUE(back_product(back_, weight_).equal(back));
  EXPECT_TRUE(outer_product(back_, x_).equal(outer));
  set_threads(before);
}

TEST_F(Products, RefuseWhatIsNoFloat32Matrix) {
  EXPECT_THROW(product(x_.to(at::kDouble), weight_), std::exception);
  EXPECT_THROW(product(x_.t(), weight_), std::exception);
}

// The BLAS itself shares products out to threads, and on some processors that shows in last bits.
TEST(Gemm, HasTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor a = waves({421, 200}, 0.381).to(at::kDouble),
                   b = waves({200, 130}, 0.391).to(at::kDouble);
  const auto multiply = [&](int count, bool ours) {
    const int before = threads();
    set_threads(count);
    at::Tensor c = at::mm(a, b);
    if (ours) {
      gemm(false, false, 421, 130, 200, 1.0, a.const_data_ptr<double>(), 200,
           b.const_data_ptr<double>(), 130, 0.0, c.mutable_data_ptr<double>(), 130);
    }
    set_threads(before);
    return c;
  };
  for (const bool ours : {true, false}) {
    EXPECT_TRUE(multiply(1, ours).equal(multiply(2, ours))) << (ours ? "gemm" : "at::mm");
  }
}

}  // namespace
}  // namespace attar::linalg
