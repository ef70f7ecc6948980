// Fields, rules, random numbers, passes: what recipes are made of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "compress/core/fields.h"
#include "compress/core/pass.h"
#include "compress/core/random.h"
#include "compress/core/rules.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

struct Options {
  int bits = 4;
  double damping = 0.01;
  bool search = false;
  std::string type = "f16";
  std::vector<std::string> layers = {"*"};
  template <class Visit>
  static void fields(Visit&& visit) {
    visit("bits", &Options::bits, Range{2, 8}, "Bits.");
    visit("damping", &Options::damping, Range{0.0, 1.0}, "Damping.");
    visit("search", &Options::search, Any{}, "Search.");
    visit("type", &Options::type, OneOf{{"f16", "bf16"}}, "Type.");
    visit("layers", &Options::layers, Any{}, "Layers.");
  }
};

std::string refusal(const json& object) {
  try {
    read_fields<Options>(object, "pass");
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Fields, ReadsOverDefaultsAndWritesAllBack) {
  const auto read = read_fields<Options>({{"bits", 3}, {"layers", "mlp.*"}}, "pass");
  EXPECT_EQ(read.bits, 3);
  EXPECT_EQ(read.damping, 0.01);
  EXPECT_EQ(read.layers, std::vector<std::string>{"mlp.*"});
  EXPECT_EQ(write_fields(read_fields<Options>(write_fields(read), "again")), write_fields(read));
}

TEST(Fields, RefusesWithKeyRuleAndValue) {
  EXPECT_EQ(refusal({{"bits", 9}}), "[pass] bits must be in [2, 8], got 9");
  EXPECT_THAT(refusal({{"bitz", 4}}), HasSubstr("unknown key 'bitz'; did you mean 'bits'?"));
  EXPECT_THAT(refusal({{"bits", "four"}}), HasSubstr("bits must be a whole number, got \"four\""));
  EXPECT_THAT(refusal({{"bits", 4.5}}), HasSubstr("whole number"));
  EXPECT_THAT(refusal({{"bits", std::numeric_limits<std::uint64_t>::max()}}),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal({{"search", 1}}), HasSubstr("true or false"));
  EXPECT_THAT(refusal({{"type", "f8"}}), HasSubstr("one of f16 | bf16, got 'f8'"));
  EXPECT_THAT(refusal({{"layers", {1, 2}}}), HasSubstr("a text or a list of texts"));
  EXPECT_THAT(refusal(json::array()), HasSubstr("expected a mapping"));
}

TEST(Rules, NameLayersByRoleShortNameAndFullName) {
  EXPECT_TRUE(LayerPattern("down").matches(3, Role::kDown));
  EXPECT_FALSE(LayerPattern("down").matches(3, Role::kUp));
  EXPECT_TRUE(LayerPattern("mlp.*").matches(3, Role::kGate));
  EXPECT_FALSE(LayerPattern("mlp.*").matches(3, Role::kOutput));
  EXPECT_TRUE(LayerPattern("model.layers.[0-3].self_attn.?_proj").matches(3, Role::kKey));
  EXPECT_FALSE(LayerPattern("model.layers.[0-3].self_attn.?_proj").matches(4, Role::kKey));
}

TEST(Rules, APatternThatMatchesNothingIsAnError) {
  const ModelConfig config = testing::small_config();
  EXPECT_NO_THROW(require_matches({"*", "v"}, config, "pass"));
  EXPECT_THROW(require_matches({"mlp.dwon_proj"}, config, "pass"), UsageError);
  EXPECT_THROW(require_matches({"model.layers.3.mlp.*"}, config, "pass"), UsageError);
  EXPECT_THROW(LayerPattern(""), UsageError);
}

TEST(CounterRandom, DependsOnSeedPurposeAndIndexAlone) {
  const CounterRandom a(1, "x"), b(1, "y"), c(2, "x");
  EXPECT_EQ(a.bits(5), CounterRandom(1, "x").bits(5));
  EXPECT_NE(a.bits(5), b.bits(5));
  EXPECT_NE(a.bits(5), c.bits(5));
  EXPECT_NE(a.bits(5), a.bits(6));
}

// 20,000 draws: mean of a uniform within 5 standard errors, every tenth hit within 5.
TEST(CounterRandom, IsUniformAndNormal) {
  const CounterRandom random(3, "test");
  constexpr int kDraws = 20000;
  double sum = 0, normal_sum = 0, normal_squares = 0;
  std::array<int, 10> hits{};
  for (int i = 0; i < kDraws; ++i) {
    sum += random.uniform(i);
    ++hits[random.below(i, 10)];
    const double z = random.normal(i);
    normal_sum += z;
    normal_squares += z * z;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(normal_sum / kDraws, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(normal_squares / kDraws, 1, 5 * std::sqrt(2.0 / kDraws));
  for (const int hit : hits) EXPECT_NEAR(hit, kDraws / 10, 5 * std::sqrt(kDraws * 0.09));
}

TEST(PassReport, GoesThroughJsonUnchanged) {
  PassReport report;
  report.changed.push_back({"model.layers.0.mlp.up_proj", "gptq W4", 100, 30, 0.01, 0.02, 1.5});
  report.skipped.push_back({"model.layers.0.mlp.down_proj", "skip 'down'"});
  report.events.push_back({"layer", "damping", "0.1", true});
  EXPECT_EQ(json(json(report).get<PassReport>()), json(report));
}

}  // namespace
}  // namespace attar
