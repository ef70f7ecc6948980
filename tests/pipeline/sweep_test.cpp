#include "compress/pipeline/sweep.h"

#include <gmock/gmock.h>

#include "compress/io/atomic_file.h"
#include "tests/io/temporary_folder.h"
#include "tests/pipeline/fake_pass.h"

namespace attar {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;

class Sweep : public testing::Test {
 protected:
  void SetUp() override {
    io::write_file(
        file(), "version: 1\nmodel: m\ncalibration: {text: t}\npasses: [fake.plain: {bits: 4}]\n");
  }
  std::filesystem::path file() const { return folder_.path() / "r.yaml"; }
  std::vector<std::string> names(const std::vector<std::string>& overrides) const {
    std::vector<std::string> found;
    for (const SweepRun& run : sweep_runs(file(), overrides, fake_registry())) {
      found.push_back(run.name);
    }
    return found;
  }
  io::testing::TemporaryFolder folder_;
};

TEST_F(Sweep, AListInPlaceOfAValueIsARunForEach) {
  EXPECT_THAT(names({"seed=1"}), ElementsAre(""));
  EXPECT_THAT(names({"passes.0.bits=[3, 4]", "seed=[1, 2]"}),
              ElementsAre("passes.0.bits=3,seed=1", "passes.0.bits=3,seed=2",
                          "passes.0.bits=4,seed=1", "passes.0.bits=4,seed=2"));
  const auto runs = sweep_runs(file(), {"passes.0.bits=[3, 4]", "seed=5"}, fake_registry());
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[1].recipe.passes[0].options, nlohmann::json({{"bits", 4}}));
  EXPECT_EQ(runs[1].recipe.seed, 5U);
}

TEST_F(Sweep, WhatOneOverrideNeedsAnotherMayGive) {
  io::write_file(file(), "version: 1\npasses: [fake.plain: {bits: 4}]\n");
  EXPECT_THAT(names({"model=m", "passes.0.bits=[3, 4]"}),
              ElementsAre("passes.0.bits=3", "passes.0.bits=4"));
  EXPECT_THAT(names({"passes.0.bits=[3, 4]", "calibration={text: [a, b]}", "model=m"}),
              ElementsAre("passes.0.bits=3", "passes.0.bits=4"));
}

TEST_F(Sweep, TwoRunsNeverShareAFolder) {
  EXPECT_THROW(names({"seed=[1, 1]"}), UsageError);
  EXPECT_THROW(names({"model=[a/b, a_b]"}), UsageError);
}

TEST_F(Sweep, AListWhereARecipeTakesOneIsAList) {
  EXPECT_THAT(names({"calibration.text=[a.txt, b.txt]"}), ElementsAre(""));
  EXPECT_THAT(names({"eval=[]"}), ElementsAre(""));
}

TEST_F(Sweep, AnEntryThatNoRunTakesIsRefusedBeforeAnyRuns) {
  EXPECT_THROW(names({"passes.0.bits=[3, 99]"}), UsageError);
  EXPECT_THROW(names({"passes.0.bits=[99, 3]"}), UsageError);
  EXPECT_THROW(names({"passes.0.nothing=[1, 2]"}), UsageError);
}

SweepOutcome outcome(const std::string& name, double bytes, double kl) {
  SweepOutcome made{name, {}, ""};
  made.result.results["attar"] = {
      {"bits_per_weight", 4.5},
      {"exports", {{{"bytes", static_cast<std::uint64_t>(bytes)}}}},
      {"texts", {{{"kl_mean", {{"value", kl}}}, {"perplexity_after", {{"value", 20}}}}}}};
  return made;
}

TEST_F(Sweep, StarsStandAtThoseThatNoneBeatsInBoth) {
  const std::string table = sweep_table({outcome("a", 100, 0.3),
                                         outcome("b", 120, 0.3),
                                         outcome("c", 150, 0.1),
                                         {"d", {}, "[gate] not met"}});
  EXPECT_THAT(table, MatchesRegex("(.|\n)*\\|a [^\n]*\\* *\\|\n(.|\n)*"));
  EXPECT_THAT(table, MatchesRegex("(.|\n)*\\|c [^\n]*\\* *\\|\n(.|\n)*"));
  EXPECT_THAT(table, testing::Not(MatchesRegex("(.|\n)*\\|b [^\n]*\\* *\\|\n(.|\n)*")));
  EXPECT_THAT(table, HasSubstr("[gate] not met"));
}

}  // namespace
}  // namespace attar
