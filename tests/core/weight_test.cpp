#include "compress/core/weight.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/core/block.h"
#include "compress/core/errors.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;

QuantizedWeight quantized(ZeroPoint zero_point) {
  QuantizedWeight w;
  w.scheme = {4, 8, zero_point, at::kHalf};
  w.codes = (normal({6, 16}, "codes") * 4 + 8).round().clamp(0, 15).to(at::kByte);
  w.scale = normal({6, 2}, "scale").abs() + 0.1;
  w.zero = zero_point == ZeroPoint::kMinimum
               ? normal({6, 2}, "minimum")
               : (normal({6, 2}, "zero") * 3 + 8).round().clamp(0, 15);
  return w;
}

SparseWeight sparse() {
  at::Tensor values = normal({6, 13}, "sparse");
  values.masked_fill_(values.abs() < 0.7, 0);
  return to_sparse(values);
}

LowRankWeight low_rank(std::int64_t in) { return {normal({6, 3}, "b"), normal({3, in}, "a")}; }

// value = (code - zero) * scale, worked by hand.
TEST(Weight, DequantizesAsWrittenAtZeroPoint) {
  QuantizedWeight w;
  w.scheme = {4, 2, ZeroPoint::kInteger, at::kHalf};
  w.codes = at::tensor({0, 15, 7, 8}, at::kByte).reshape({1, 4});
  w.scale = at::tensor({0.5f, 2.0f}, at::kFloat).reshape({1, 2});
  w.zero = at::tensor({3.0f, 8.0f}, at::kFloat).reshape({1, 2});
  EXPECT_TRUE(at::equal(dense(Weight(w)),
                        at::tensor({-1.5f, 6.0f, -2.0f, 0.0f}, at::kFloat).reshape({1, 4})));
  w.scheme.zero_point = ZeroPoint::kMinimum;
  EXPECT_TRUE(at::equal(dense(Weight(w)),
                        at::tensor({3.0f, 10.5f, 22.0f, 24.0f}, at::kFloat).reshape({1, 4})));
  w.scheme.zero_point = ZeroPoint::kSymmetric;
  EXPECT_TRUE(at::equal(dense(Weight(w)),
                        at::tensor({-4.0f, 3.5f, -2.0f, 0.0f}, at::kFloat).reshape({1, 4})));
}

TEST(Weight, SparseKeepsEveryNonzeroInPlace) {
  at::Tensor values = normal({6, 13}, "sparse");
  values.masked_fill_(values.abs() < 0.7, 0);
  EXPECT_TRUE(at::equal(dense(Weight(to_sparse(values))), values));
}

TEST(Weight, BitsAWeightCountCodesScalesAndZeros) {
  EXPECT_DOUBLE_EQ((QuantScheme{4, 64, ZeroPoint::kInteger}.bits_per_weight(128)), 4 + 20.0 / 64);
  EXPECT_DOUBLE_EQ((QuantScheme{4, 64, ZeroPoint::kSymmetric}.bits_per_weight(128)), 4.25);
  EXPECT_DOUBLE_EQ((QuantScheme{4, 32, ZeroPoint::kMinimum}.bits_per_weight(128)), 5.0);
  EXPECT_DOUBLE_EQ((QuantScheme{3, 0, ZeroPoint::kSymmetric}.bits_per_weight(128)), 3 + 16.0 / 128);
}

// Each kind of weight: a forward equals the product with the equal dense matrix.
class LinearForward : public ::testing::TestWithParam<std::string> {};

Weight weight_of(const std::string& kind) {
  if (kind == "dense") return DenseWeight{normal({6, 16}, "dense").to(at::kHalf)};
  if (kind == "symmetric") return quantized(ZeroPoint::kSymmetric);
  if (kind == "integer") return quantized(ZeroPoint::kInteger);
  if (kind == "minimum") return quantized(ZeroPoint::kMinimum);
  if (kind == "sparse") return sparse();
  if (kind == "low_rank") return low_rank(16);
  return CorrectedWeight{quantized(ZeroPoint::kInteger), low_rank(16)};
}

TEST_P(LinearForward, EqualsItsDenseEquivalent) {
  Linear linear{weight_of(GetParam()), normal({6}, "bias")};
  check(linear.weight, GetParam());
  const at::Tensor matrix = dense(linear.weight).to(at::kDouble);
  const at::Tensor x = normal({5, matrix.size(1)}, "x");
  const at::Tensor expected = x.to(at::kDouble).matmul(matrix.t()) + linear.bias.to(at::kDouble);
  const at::Tensor got = linear.forward(x).to(at::kDouble);
  // Sums of at most 16 products of size about 10, each rounded to float32.
  EXPECT_LE((got - expected).abs().max().item<double>(), 16 * 32 * 6e-8) << GetParam();
}

TEST_P(LinearForward, IsFiniteCheckedAndNamed) {
  EXPECT_FALSE(kind_of(weight_of(GetParam())).empty());
  EXPECT_GT(stored_bytes(weight_of(GetParam())), 0);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LinearForward,
                         ::testing::Values("dense", "symmetric", "integer", "minimum", "sparse",
                                           "low_rank", "corrected"),
                         [](const auto& info) { return info.param; });

TEST(Weight, GivesGradientsForScalesAndFactors) {
  QuantizedWeight w = quantized(ZeroPoint::kInteger);
  w.scale.requires_grad_(true);
  dense(Weight(w)).sum().backward();
  const at::Tensor expected =
      (w.codes.to(at::kFloat).reshape({6, 2, 8}) - w.zero.unsqueeze(2)).sum(2);
  EXPECT_TRUE(at::allclose(w.scale.grad(), expected));
  LowRankWeight factors = low_rank(16);
  factors.a.requires_grad_(true);
  Linear{factors, {}}.forward(normal({2, 16}, "x")).sum().backward();
  EXPECT_TRUE(factors.a.grad().defined());
}

TEST(Weight, RefusesPartsThatDisagree) {
  QuantizedWeight w = quantized(ZeroPoint::kInteger);
  w.codes.fill_(16);
  EXPECT_THROW(check(Weight(w), "layer"), BadInput);
  w = quantized(ZeroPoint::kInteger);
  w.scale = w.scale.narrow(1, 0, 1);
  EXPECT_THROW(check(Weight(w), "layer"), BadInput);
  SparseWeight s = sparse();
  s.values = s.values.narrow(0, 0, 3);
  EXPECT_THROW(check(Weight(s), "layer"), BadInput);
  LowRankWeight l = low_rank(16);
  l.a = l.a.narrow(0, 0, 2);
  EXPECT_THROW(check(Weight(l), "layer"), BadInput);
}

}  // namespace
}  // namespace attar
