#include "distill/loss_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"

namespace attar {
namespace {

LossPlan read(const char* text) { return read_losses(nlohmann::json::parse(text), "loss"); }

TEST(LossPlan, TakesANameAMappingOrAList) {
  EXPECT_EQ(read(R"("reverse_kl")").responses.at(0).term.kind, ResponseKind::reverse_kl);
  const LossPlan mapped = read(
      R"({"forward_kl": {"weight": 0.9, "temperature": 2}, "cross_entropy": {"weight": 0.1}})");
  ASSERT_EQ(mapped.responses.size(), 2u);
  EXPECT_EQ(mapped.responses[1].term.temperature, 2);
  EXPECT_EQ(mapped.responses[1].term.weight, 0.9);
  const LossPlan listed = read(
      R"([{"forward_kl": {"until": 0.8}}, {"skew_reverse": {"from": 0.8}}, {"hidden": {}}, "relation"])");
  EXPECT_EQ(listed.responses[1].term.mix, 0.1);
  EXPECT_EQ(listed.hidden.size() + listed.relations.size(), 2u);
  EXPECT_TRUE(listed.responses[0].active.holds(79, 100));
  EXPECT_FALSE(listed.responses[0].active.holds(80, 100));
  EXPECT_TRUE(listed.responses[1].active.holds(80, 100));
  EXPECT_TRUE(listed.responses[1].active.holds(99, 100));
}

TEST(LossPlan, TheEndsOfAMixtureAreTheDivergencesThemselves) {
  EXPECT_EQ(read(R"({"jensen_shannon": {"mix": 0}})").responses[0].term.kind,
            ResponseKind::forward_kl);
  EXPECT_EQ(read(R"({"jensen_shannon": {"mix": 1}})").responses[0].term.kind,
            ResponseKind::reverse_kl);
  EXPECT_EQ(read(R"({"skew_reverse": {"mix": 0}})").responses[0].term.kind,
            ResponseKind::reverse_kl);
  EXPECT_THROW(read(R"({"skew_forward": {"mix": 1}})"), UsageError);
}

TEST(LossPlan, NamesWhatItDoesNotKnow) {
  const auto refusal = [](const char* text) -> std::string {
    try {
      read(text);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal(R"("froward_kl")"), ::testing::HasSubstr("known: forward_kl"));
  EXPECT_THAT(refusal(R"({"forward_kl": {"wieght": 1}})"), ::testing::HasSubstr("wieght"));
  EXPECT_THAT(refusal(R"({"forward_kl": {"from": 0.5, "until": 0.5}})"),
              ::testing::HasSubstr("less than"));
  EXPECT_THAT(refusal("[]"), ::testing::HasSubstr("no loss"));
}

}  // namespace
}  // namespace attar
