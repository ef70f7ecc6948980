#include "prune/structured_obs.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "tests/prune/matrices.h"

namespace attar {
namespace {

using testing::correlated_hessian;
using testing::normal;

at::Tensor matrix(const nlohmann::json& rows) {
  std::vector<double> values;
  for (const auto& row : rows) {
    for (const auto& value : row) values.push_back(value.get<double>());
  }
  return at::tensor(values, at::kDouble).reshape({static_cast<std::int64_t>(rows.size()), -1});
}

at::Tensor numbers(std::int64_t count) { return at::arange(count, at::kLong); }

double loss_of(const at::Tensor& change, const at::Tensor& h) {
  const at::Tensor d = change.to(at::kDouble);
  return (at::mm(d, h) * d).sum().item<double>();
}

class StructuredObs : public ::testing::Test {
 protected:
  void SetUp() override {
    set_up_numerics();
    weight_ = normal({40, 64}, "weight");
    hessian_ = correlated_hessian(64, "inputs");
  }
  at::Tensor weight_, hessian_;
};

// ../shared/specs/golden: columns 1 and 4 removed under the damped H.
TEST(StructuredObsGolden, LossAndRefitOfTwoColumns) {
  set_up_numerics();
  const std::filesystem::path path = ATTAR_SOURCE_DIR "/../shared/specs/golden/golden.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/specs/golden/golden.json";
  nlohmann::json golden;
  std::ifstream(path) >> golden;
  const at::Tensor weight = matrix(golden["W"]), h = matrix(golden["H_damped"]);
  const at::Tensor expected = matrix(golden["obs_struct_rm_1_4"]["W"]);
  const at::Tensor kept = at::tensor({0, 2, 3, 5}, at::kLong);
  const Refit refit = refit_columns(weight.to(at::kFloat), h, h, h, kept, numbers(6), 0.0);
  EXPECT_LT((refit.weight - expected.index_select(1, kept)).abs().max().item<double>(), 1e-5);
  const double energy = loss_of(weight, h), rho = golden["obs_struct_rm_1_4"]["rho"].get<double>();
  EXPECT_NEAR(refit.loss * energy, rho, 1e-4 * rho);
  // The same pair as one unit of two columns: moved side by side.
  const at::Tensor order = at::tensor({0, 2, 3, 5, 1, 4}, at::kLong);
  const at::Tensor moved = h.index_select(0, order).index_select(1, order);
  const at::Tensor losses = unit_losses(weight.index_select(1, order), moved.inverse(), 2);
  EXPECT_NEAR(losses[2].item<double>(), rho, 1e-9 * rho);
}

// The sum of what the sweep says is what the exact refit loses.
TEST_F(StructuredObs, ForetellsTheLossOfTheExactRefit) {
  for (const std::int64_t width : {1, 8}) {
    const ObsOptions options{width, 4, 0.01};
    const std::int64_t units = 64 / width, count = units / 2;
    const RemovalOrder order = removal_order(weight_, hessian_, count, options);
    at::Tensor damped = hessian_.clone();
    damped.diagonal().add_(0.01 * hessian_.diagonal().mean().item<double>());
    const at::Tensor kept = columns_of(order.kept(count, units), width);
    ASSERT_EQ(kept.size(0), 32);
    const Refit refit = refit_columns(weight_, damped, damped, damped, kept, numbers(64), 0.0);
    EXPECT_NEAR(refit.loss, order.losses.back() / order.energy, 1e-5) << width;
    EXPECT_LT(refit.loss, 0.6 * refit.unrefit);
    for (std::size_t k = 1; k < order.losses.size(); ++k) {
      EXPECT_GE(order.losses[k], order.losses[k - 1]);
    }
  }
}

TEST_F(StructuredObs, ChoosesTheSameForAnyBatch) {
  const RemovalOrder one = removal_order(weight_, hessian_, 40, {1, 1, 1e-6});
  const RemovalOrder many = removal_order(weight_, hessian_, 40, {1, 32, 1e-6});
  EXPECT_EQ(one.units, many.units);
  EXPECT_NEAR(one.losses.back(), many.losses.back(), 1e-9 * one.energy);
}

// Those that go later know of those that went before.
TEST_F(StructuredObs, LosesNoMoreThanChoosingAtOnceOrBySize) {
  const auto loss = [&](std::vector<std::pair<double, std::int64_t>> scores) {
    std::sort(scores.rbegin(), scores.rend());
    std::vector<std::int64_t> kept;
    for (std::size_t k = 0; k < 32; ++k) kept.push_back(scores[k].second);
    std::sort(kept.begin(), kept.end());
    return refit_columns(weight_, hessian_, hessian_, hessian_, columns_of(kept, 1), numbers(64),
                         1e-6)
        .loss;
  };
  const RemovalOrder order = removal_order(weight_, hessian_, 32, {1, 32, 1e-6});
  std::vector<std::pair<double, std::int64_t>> swept, at_once, sizes;
  const at::Tensor alone = unit_losses(weight_.to(at::kDouble), hessian_.inverse(), 1);
  for (std::int64_t j = 0; j < 64; ++j) {
    at_once.emplace_back(alone[j].item<double>(), j);
    sizes.emplace_back(weight_.select(1, j).square().sum().item<double>(), j);
  }
  for (const std::int64_t j : order.kept(32, 64)) swept.emplace_back(1.0, j);
  EXPECT_LT(loss(swept), loss(at_once));
  EXPECT_LT(loss(swept), loss(sizes));
}

// Neuron 7 says what neuron 3 says: one of them goes for nothing and leaves its weight to the
// other.
TEST_F(StructuredObs, MergesADuplicatedNeuron) {
  at::Tensor x = normal({400, 16}, "x").to(at::kDouble);
  x.select(1, 7).copy_(x.select(1, 3));
  const at::Tensor h = at::mm(x.t(), x), w = normal({10, 16}, "w");
  const RemovalOrder order = removal_order(w, h, 1, {1, 1, 1e-9});
  EXPECT_TRUE(order.units[0] == 3 || order.units[0] == 7);
  EXPECT_LT(order.losses[1] / order.energy, 1e-6);
  const auto kept = order.kept(1, 16);
  const Refit refit = refit_columns(w, h, h, h, columns_of(kept, 1), numbers(16), 1e-9);
  const std::int64_t stays = order.units[0] == 3 ? 7 : 3;
  const std::int64_t at = std::find(kept.begin(), kept.end(), stays) - kept.begin();
  const at::Tensor sum = w.select(1, 3) + w.select(1, 7);
  EXPECT_LT((refit.weight.select(1, at) - sum).abs().max().item<double>(), 1e-4);
}

// With inputs that went wrong before this layer, the target is the dense output from dense inputs.
TEST_F(StructuredObs, RefitsTowardsTheDenseOutput) {
  const at::Tensor x = normal({600, 32}, "dense").to(at::kDouble);
  const at::Tensor q = x.mm((normal({32, 32}, "mix") * 0.1).to(at::kDouble)) + x;
  const at::Tensor w = normal({12, 32}, "w");
  const at::Tensor kept = numbers(24);
  const Refit refit = refit_columns(w, at::mm(x.t(), x), at::mm(x.t(), q), at::mm(q.t(), q), kept,
                                    numbers(32), 1e-9);
  const auto miss = [&](const at::Tensor& values) {
    const at::Tensor target = x.mm(w.to(at::kDouble).t());
    const at::Tensor given = q.narrow(1, 0, 24).mm(values.to(at::kDouble).t());
    return ((given - target).square().sum() / target.square().sum()).item<double>();
  };
  EXPECT_NEAR(refit.loss, miss(refit.weight), 1e-6);
  EXPECT_NEAR(refit.unrefit, miss(w.narrow(1, 0, 24)), 1e-6);
  // A minimum: no small change of the weight is better.
  for (int trial = 0; trial < 5; ++trial) {
    const at::Tensor step = 1e-2 * normal({12, 24}, "step" + std::to_string(trial));
    EXPECT_GT(miss(refit.weight + step), refit.loss);
  }
}

TEST_F(StructuredObs, IsTheSameWeightWhereNothingIsMissing) {
  const Refit refit =
      refit_columns(weight_, hessian_, hessian_, hessian_, numbers(64), numbers(64), 0.05);
  EXPECT_LT((refit.weight - weight_).abs().max().item<double>(), 1e-5);
}

TEST(ShareOut, IsTheBestOfAll) {
  for (int trial = 0; trial < 6; ++trial) {
    const at::Tensor steps = normal({4, 4}, "steps" + std::to_string(trial)).abs();
    std::vector<std::vector<double>> errors(4, {0.0});
    for (std::size_t l = 0; l < 4; ++l) {
      for (std::int64_t k = 0; k < 4; ++k) {
        errors[l].push_back(errors[l].back() +
                            steps[static_cast<std::int64_t>(l)][k].item<double>());
      }
    }
    const std::vector<std::int64_t> found = share_out(errors, 7);
    const auto cost = [&](const std::vector<std::int64_t>& levels) {
      double sum = 0;
      for (std::size_t l = 4; l-- > 0;) sum += errors[l][static_cast<std::size_t>(levels[l])];
      return sum;
    };
    double best = 1e300;
    for (std::int64_t code = 0; code < 625; ++code) {
      const std::vector<std::int64_t> levels{code % 5, code / 5 % 5, code / 25 % 5, code / 125};
      if (levels[0] + levels[1] + levels[2] + levels[3] == 7) best = std::min(best, cost(levels));
    }
    EXPECT_EQ(found[0] + found[1] + found[2] + found[3], 7);
    EXPECT_NEAR(cost(found), best, 1e-12);
  }
  EXPECT_THROW(share_out({{0.0, 1.0}, {0.0}}, 2), DoesNotFit);
}

TEST_F(StructuredObs, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  set_threads(1);
  const RemovalOrder one = removal_order(weight_, hessian_, 32);
  set_threads(2);
  const RemovalOrder two = removal_order(weight_, hessian_, 32);
  set_threads(before);
  EXPECT_EQ(one.units, two.units);
  EXPECT_EQ(one.losses, two.losses);
}

TEST_F(StructuredObs, RefusesWhatCannotBe) {
  EXPECT_THROW(removal_order(weight_, hessian_, 64), UsageError);
  EXPECT_THROW(removal_order(weight_, hessian_, 1, {7, 1, 0.01}), UsageError);
  EXPECT_THROW(removal_order(weight_, hessian_ * std::nan(""), 1), NumericRefusal);
  EXPECT_THROW(removal_order(weight_, hessian_ * 0.0, 1), NumericRefusal);
}

}  // namespace
}  // namespace attar
