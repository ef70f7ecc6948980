#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "tests/lowrank/small_model.h"

namespace attar {
namespace {

using ::testing::HasSubstr;

class SvdPassOnASmallModel : public testing::SmallModel {};

SvdConfig config_with(double keep) {
  SvdConfig config;
  config.keep = keep;
  config.type = "f32";
  return config;
}

SvdConfig plain(double keep) {
  SvdConfig config = config_with(keep);
  config.method = "plain";
  config.allocation = "uniform";
  return config;
}

// The bar: a third of plain truncation's KL, at no more bytes. A model of 260 thousand weights has
// little to spare; at 0.6 nothing much of it is left either way.
TEST_F(SvdPassOnASmallModel, LosesAThirdOfWhatPlainTruncationLosesAtEqualBytes) {
  for (const auto& [keep, times] : {std::pair{0.8, 3.0}, {0.6, 2.0}}) {
    const Model baseline = cut(plain(keep));
    const Model ours = cut(config_with(static_cast<double>(bytes_of(baseline)) /
                                       static_cast<double>(bytes_of(original()))));
    EXPECT_LE(bytes_of(ours), bytes_of(baseline)) << keep;
    EXPECT_LT(times * divergence(ours), divergence(baseline)) << keep;
  }
}

// Each part of the mathematics, taken out alone, costs.
TEST_F(SvdPassOnASmallModel, EachPartLowersTheDivergence) {
  const double whole = divergence(cut(config_with(0.8)));
  SvdConfig no_refit = config_with(0.8), uniform = no_refit;
  no_refit.refit = "none";
  uniform.allocation = "uniform";
  const double without_refit = divergence(cut(no_refit));
  EXPECT_LT(whole, 0.98 * without_refit);
  EXPECT_LT(whole, 0.7 * divergence(cut(uniform)));
  EXPECT_LT(without_refit, 0.5 * divergence(cut(plain(0.8))));
}

// Where ranks are shared out less well, the refit makes up for much of it.
TEST_F(SvdPassOnASmallModel, RefitMakesUpForRanksByEnergyAlone) {
  SvdConfig config = config_with(0.8), no_refit = config;
  config.sensitivity = no_refit.sensitivity = "energy";
  no_refit.refit = "none";
  EXPECT_LT(divergence(cut(config)), 0.7 * divergence(cut(no_refit)));
}

TEST_F(SvdPassOnASmallModel, EightBitFactorsLoseLittleAndTakeLess) {
  SvdConfig config = config_with(0.8), rounded = config;
  config.type = "f16";
  rounded.bits = 8;
  const auto written = [&] {
    std::int64_t bytes = 0;
    for (const LayerChange& change : report_.changed) {
      if (change.action.starts_with("svd")) bytes += change.bytes_after;
    }
    return static_cast<double>(bytes);
  };
  const double plain_loss = divergence(cut(config)), plain_bytes = written();
  EXPECT_LT(divergence(cut(rounded)), 1.02 * plain_loss);
  EXPECT_LT(written(), 0.8 * plain_bytes);  // groups of 4 here: 8 bits and a quarter of 16
}

TEST_F(SvdPassOnASmallModel, KeepsTheBudgetAndNeverMakesALayerLarger) {
  const Model changed = cut(config_with(0.75));
  EXPECT_LE(static_cast<double>(bytes_of(changed)),
            0.75 * static_cast<double>(bytes_of(original())));
  for (std::int64_t index = 0; index < changed.config().layers; ++index) {
    const Block block = changed.block(index), before = original().block(index);
    for (const Role role : kRoles) {
      EXPECT_LE(stored_bytes(block[role].weight), stored_bytes(before[role].weight));
      if (const auto* factors = std::get_if<LowRankWeight>(&block[role].weight)) {
        EXPECT_EQ(factors->a.size(0) % 4, 0) << layer_name(index, role);
      }
    }
  }
  EXPECT_THAT(report_.events.front().text, HasSubstr("parameters stay"));
}

TEST_F(SvdPassOnASmallModel, HasTheSameBitsForOneThreadAndTwo) {
  const int before = threads();
  set_threads(1);
  const Model one = cut(config_with(0.7));
  set_threads(2);
  const Model two = cut(config_with(0.7));
  set_threads(before);
  for (std::int64_t index = 0; index < one.config().layers; ++index) {
    const Block a = one.block(index), b = two.block(index);
    for (const Role role : kRoles) {
      EXPECT_TRUE(dense(a[role].weight).equal(dense(b[role].weight))) << layer_name(index, role);
    }
  }
}

TEST_F(SvdPassOnASmallModel, LeavesAloneWhatRulesLeaveOut) {
  SvdConfig config = config_with(0.7);
  config.layers = {"mlp.*"};
  config.skip = {"down"};
  const Block changed = cut(config).block(2), before = original().block(2);
  for (const Role role : kRoles) {
    const bool chosen = role == Role::kGate || role == Role::kUp;
    EXPECT_EQ(dense(changed[role].weight).equal(dense(before[role].weight)), !chosen)
        << to_string(role);
  }
}

TEST(SvdPass, PlansRanksAndRefusesOnesThatMakeALayerLarger) {
  SvdConfig config;
  config.rank = 24;
  const ModelConfig model = testing::small_config();
  config.layers = {"mlp.*"};
  const auto planned = SvdPass(config).plan(model);
  EXPECT_EQ(planned[4].action, "svd of rank 24");
  EXPECT_NEAR(planned[4].parameters, 24.0 * (160 + 64) / (160 * 64), 1e-12);
  EXPECT_FALSE(planned[0].changes);
  config.layers = {"*"};
  EXPECT_THROW(SvdPass(config).plan(model), DoesNotFit);  // k is 32 x 64
  config.layers = {"mlp.*", "nothing"};
  EXPECT_THROW(SvdPass(config).plan(model), UsageError);
}

}  // namespace
}  // namespace attar
