// Products of float32 matrices on attar's own kernels (kernels/packed_product): an element's bits
// depend on its row, its column and the inner size alone, for any number of rows and threads.
//
// Shapes: N rows, I inputs, O outputs. All float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attar::linalg {

// A matrix W [O, I] that stays packed for many products.
class PackedMatrix {
 public:
  // Values [O, I], rows I apart, or, `turned`, [I, O] with rows `stride` apart.
  PackedMatrix(const float* values, std::int64_t outputs, std::int64_t inputs, bool turned = false,
               std::int64_t stride = 0);

  struct Rows {
    const float* x;  // [N, I], or [I, N] if turned
    std::int64_t stride;
    std::int64_t count;  // N
    bool turned = false;
  };
  // out [N, O'] = x W'^T + bias + added, W' the outputs [first, O): first is a multiple of 32.
  // `bias` [O'] and `added` [N, O'] may be null; `added` may be `out`, and has its stride.
  void multiply(const Rows& rows, std::int64_t first, const float* bias, const float* added,
                float* out, std::int64_t out_stride) const;

  // total [N, O'] += x W'^T, products in float32 and sums in float64; a panel of rows at a time, so
  // that there is never a float32 matrix of that size.
  void add_to(const Rows& rows, std::int64_t first, double* total, std::int64_t total_stride);

 private:
  std::int64_t outputs_, inputs_;
  at::Tensor memory_;
  at::Tensor panel_;  // of add_to
};

// out [N, O] = x [N, I] weight^T [O, I] + bias [O]; `bias` may be undefined. weight is contiguous;
// rows of x and out may lie apart. The weight is packed a strip of outputs at a time.
void product_into(at::Tensor out, const at::Tensor& x, const at::Tensor& weight,
                  const at::Tensor& bias = {});
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

// out [N, I] = back [N, O] weight [O, I]: the gradient of x. Strips of outputs are added in order.
void back_product_into(at::Tensor out, const at::Tensor& back, const at::Tensor& weight);
at::Tensor back_product(const at::Tensor& back, const at::Tensor& weight);

// sum [O, I] = or += back^T x: the gradient of weight. back [N, O], x [N, I].
void outer_product_into(at::Tensor sum, const at::Tensor& back, const at::Tensor& x, bool add);
at::Tensor outer_product(const at::Tensor& back, const at::Tensor& x);

}  // namespace attar::linalg
