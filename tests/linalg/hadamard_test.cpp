#include "compress/linalg/hadamard.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/errors.h"

namespace attar::linalg {
namespace {

RandomRotation rotation(std::int64_t n) {
  std::vector<bool> negative;
  for (std::int64_t i = 0; i < n; ++i) negative.push_back(i * i % 7 == 2 || i % 5 == 1);
  return RandomRotation(negative);
}

at::Tensor waves(std::int64_t rows, std::int64_t columns) {
  return at::arange(rows * columns, at::kFloat).mul(0.7).sin().reshape({rows, columns});
}

struct Order {
  std::int64_t size, block;
};
class RandomRotations : public testing::TestWithParam<Order> {};

TEST_P(RandomRotations, AreOrthogonalAndSpreadEveryColumnEvenly) {
  const auto [n, block] = GetParam();
  const RandomRotation turn = rotation(n);
  EXPECT_EQ(turn.block(), block);
  const at::Tensor q = turn.columns(at::eye(n, at::kFloat));
  EXPECT_TRUE(at::allclose(q.mm(q.t()), at::eye(n, at::kFloat), 0, 1e-5));
  const float height = 1 / std::sqrt(static_cast<float>(block));
  const at::Tensor sizes = q.abs();
  EXPECT_TRUE((sizes.sub(height).abs().lt(1e-7) | sizes.eq(0)).all().item<bool>());
  EXPECT_TRUE(sizes.gt(0).sum(1).eq(block).all().item<bool>());
}

// Sylvester, both of Paley's, their products (SmolLM2, Qwen2.5), and 43 x 4, which has none.
INSTANTIATE_TEST_SUITE_P(Orders, RandomRotations,
                         testing::Values(Order{1, 1}, Order{2, 2}, Order{64, 64}, Order{12, 12},
                                         Order{20, 20}, Order{36, 36}, Order{76, 76},
                                         Order{576, 576}, Order{896, 896}, Order{1536, 1536},
                                         Order{9, 1}, Order{172, 4}));

TEST(RandomRotation, TurnsRowsBackAndPartsByThemselves) {
  const RandomRotation turn = rotation(24);
  const at::Tensor x = waves(5, 24), w = waves(24, 7);
  EXPECT_TRUE(at::allclose(turn.columns(x).mm(turn.rows(w)), x.mm(w), 1e-5, 1e-5));
  const at::Tensor two = at::cat({x, 2 * x}, 1);
  EXPECT_TRUE(at::equal(turn.columns(two), at::cat({turn.columns(x), turn.columns(2 * x)}, 1)));
  EXPECT_THROW(turn.columns(waves(2, 25)), BadInput);
}

}  // namespace
}  // namespace attar::linalg
