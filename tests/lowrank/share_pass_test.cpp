#include <gmock/gmock.h>

#include <iostream>
#include <set>

#include "compress/core/errors.h"
#include "tests/lowrank/small_model.h"

namespace attar {
namespace {

class SharePassOnASmallModel : public testing::SmallModel {
 protected:
  Model share(ShareConfig config) {
    config.align = 4;
    config.type = "f32";
    const Model before = original();
    Model after = before.successor(std::make_shared<MemoryModelStore>());
    report_ = {};
    const RunContext context;
    ModelWork work{before, after, before, &calibration_, nullptr, {}, report_, context};
    SharePass(config).run(work);
    return after;
  }
};

ShareConfig keeping(double keep, std::int64_t span = 2) {
  ShareConfig config;
  config.keep = keep;
  config.span = span;
  return config;
}

// Parameters of the linear layers, a basis that layers share counted once.
std::int64_t parameters_of(const Model& model) {
  std::set<const void*> seen;
  std::int64_t count = 0;
  const auto add = [&](const at::Tensor& values) {
    if (seen.insert(values.const_data_ptr()).second) count += values.numel();
  };
  for (std::int64_t index = 0; index < model.config().layers; ++index) {
    const Block block = model.block(index);
    for (const Role role : kRoles) {
      if (const auto* factors = std::get_if<LowRankWeight>(&block[role].weight)) {
        add(factors->a);
        add(factors->b);
      } else {
        const auto [out, in] = shape_of(block[role].weight);
        count += out * in;
      }
    }
  }
  return count;
}

// All that reads one site in two neighbouring blocks; o and down are left alone.
TEST_F(SharePassOnASmallModel, LayersOfNeighbouringBlocksReadThroughOneBasis) {
  const Model model = share(keeping(0.5));
  int shared = 0;
  for (const std::int64_t first : {0, 2}) {
    const Block one = model.block(first), two = model.block(first + 1);
    const auto* here = std::get_if<LowRankWeight>(&one[Role::kGate].weight);
    const auto* there = std::get_if<LowRankWeight>(&two[Role::kUp].weight);
    EXPECT_EQ(here == nullptr, there == nullptr);
    if (here == nullptr || there == nullptr) continue;
    EXPECT_TRUE(here->a.is_same(there->a));
    EXPECT_EQ(kind_of(one[Role::kDown].weight), "dense");
    ++shared;
  }
  EXPECT_GT(shared, 0);
}

// A layer counts by what its loss does to the predictions: by energy alone v, whose outputs are
// small beside those of q and k, would lose what it has (KL 0.82 in place of 0.29).
TEST_F(SharePassOnASmallModel, CountsLayersByWhatThePredictionsLose) {
  SvdConfig own;
  own.skip = {"o", "down"};
  double shared = 0;
  for (const double keep : {0.5, 0.7, 0.9}) {
    own.keep = keep;
    const double alone = divergence(SmallModel::cut(own));
    shared = divergence(share(keeping(keep)));
    std::cout << "KL at " << keep << ": shared bases " << shared << ", layer by layer " << alone
              << "\n";
  }
  EXPECT_LT(shared, 0.4);
}

TEST_F(SharePassOnASmallModel, KeepsItsBudgetWithEachBasisCountedOnce) {
  std::int64_t chosen = 0, others = 0;
  const Block block = original().block(0);
  for (const Role role : kRoles) {
    const auto [out, in] = shape_of(block[role].weight);
    (role == Role::kOutput || role == Role::kDown ? others : chosen) += 5 * out * in;
  }
  EXPECT_LE(parameters_of(share(keeping(0.8))),
            others + static_cast<std::int64_t>(0.8 * static_cast<double>(chosen)));
}

}  // namespace
}  // namespace attar
