#include <ATen/ops/bmm.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "compress/core/numerics.h"
#include "distill/feature_loss.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;

double off(const at::Tensor& got, const at::Tensor& want) {
  return ((got.to(at::kDouble) - want).norm() / want.norm()).item<double>();
}

TEST(Hidden, AgreesWithTheFormulaInDouble) {
  const at::Tensor student = normal({30, 8}, "s"), teacher = normal({30, 12}, "t", 3);
  const at::Tensor projection = normal({8, 12}, "p");
  at::Tensor counts = at::ones({30}, at::kFloat);
  counts[4] = 0;
  ChannelScales scales = channel_scales(teacher, 1e9);
  scales.inverse_deviation[5] = 0;
  const HiddenGradient got = hidden_gradient(student, teacher, projection, scales, counts, 0.25);
  const at::Tensor s = student.to(at::kDouble).requires_grad_(true);
  const at::Tensor p = projection.to(at::kDouble).requires_grad_(true);
  const at::Tensor difference =
      (s.mm(p) - teacher.to(at::kDouble)) * scales.inverse_deviation.to(at::kDouble);
  const at::Tensor loss = (difference.square().sum(1) / 11 * counts.to(at::kDouble)).sum();
  const auto want = torch::autograd::grad({loss * 0.25}, {s, p});
  EXPECT_NEAR(got.loss, loss.item<double>(), 1e-5 * loss.item<double>());
  EXPECT_LE(off(got.student, want[0]), 1e-6);
  EXPECT_LE(off(got.projection, want[1]), 1e-6);
}

TEST(Hidden, AMassiveChannelIsLeftOutAndOthersAreMeasuredInTheirDeviation) {
  at::Tensor states = normal({400, 6}, "t") * 2 + 1;
  states.select(1, 3).mul_(500);
  const ChannelScales scales = channel_scales(states, 100);
  EXPECT_EQ(scales.massive, 1);
  EXPECT_EQ(scales.inverse_deviation[3].item<double>(), 0);
  EXPECT_NEAR(scales.inverse_deviation[0].item<double>(), 0.5, 0.05);
}

TEST(Hidden, AClosedProjectionFindsAMapThatIsThere) {
  const at::Tensor student = normal({300, 8}, "s"), map = normal({8, 12}, "m");
  ClosedProjection whole, parts;
  whole.add(student, at::mm(student, map));
  EXPECT_LE(off(whole.solve(), map.to(at::kDouble)), 1e-5);
  for (const at::Tensor& part : student.chunk(4)) parts.add(part, at::mm(part, map));
  EXPECT_LE(off(parts.solve(), map.to(at::kDouble)), 1e-5);
}

TEST(Hidden, BoundariesAreSpreadOverTheTeacher) {
  EXPECT_EQ(HiddenLoss::teacher_boundary(24, 24, 30), 30);
  EXPECT_EQ(HiddenLoss::teacher_boundary(12, 24, 30), 15);
  EXPECT_EQ(boundaries_of({}, 24), (std::vector<std::int64_t>{6, 12, 18, 24}));
  EXPECT_EQ(boundaries_of({}, 2), (std::vector<std::int64_t>{1, 2}));
}

// MiniLMv2's definition in double, one head after the other.
at::Tensor plain_relation(const at::Tensor& student, const at::Tensor& teacher,
                          std::int64_t heads) {
  const auto scores = [&](const at::Tensor& x, std::int64_t head) {
    const std::int64_t width = x.size(2) / heads;
    const at::Tensor part = x.narrow(2, head * width, width);
    return part.matmul(part.transpose(1, 2)) / std::sqrt(static_cast<double>(width));
  };
  at::Tensor total = at::zeros({}, at::kDouble);
  for (std::int64_t head = 0; head < heads; ++head) {
    const at::Tensor p = at::log_softmax(scores(teacher, head), -1);
    total = total + (p.exp() * (p - at::log_softmax(scores(student, head), -1))).sum();
  }
  return total / static_cast<double>(heads);
}

TEST(Relation, AgreesWithTheFormulaInDoubleForAnyThreads) {
  const at::Tensor student = normal({2, 17, 24}, "s"), teacher = normal({2, 17, 36}, "t");
  set_threads(1);
  const RelationGradient one = relation_gradient(student, teacher, 6, 0.5);
  set_threads(2);
  const RelationGradient two = relation_gradient(student, teacher, 6, 0.5);
  const at::Tensor s = student.to(at::kDouble).requires_grad_(true);
  const at::Tensor loss = plain_relation(s, teacher.to(at::kDouble), 6);
  const auto want = torch::autograd::grad({loss * 0.5}, {s});
  EXPECT_NEAR(one.loss, loss.item<double>(), 1e-5 * loss.item<double>());
  EXPECT_LE(off(one.student, want[0]), 3e-6);
  EXPECT_EQ(one.loss, two.loss);
  EXPECT_TRUE(at::equal(one.student, two.student));
}

TEST(Relation, HeadsDivideAllWidths) {
  EXPECT_EQ(relation_heads({576, 448}), 64);
  EXPECT_EQ(relation_heads({192, 128}), 64);
  EXPECT_EQ(relation_heads({7, 9}), 1);
}

}  // namespace
}  // namespace attar
