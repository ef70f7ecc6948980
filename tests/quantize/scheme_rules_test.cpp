#include "quantize/scheme_rules.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "quantize/passes.h"

namespace attar {
namespace {

std::string refusal(std::int64_t group, std::int64_t ffn) {
  ModelConfig config;
  config.layers = 1;
  config.hidden = 64;
  config.heads = config.kv_heads = 4;
  config.head_dim = 16;
  config.ffn = ffn;
  RtnConfig options;
  options.group_size = group;
  try {
    RtnPass(options).plan(config);
  } catch (const DoesNotFit& error) {
    return error.what();
  }
  return "";
}

TEST(SchemeRules, ProposeAGroupSizeThatDivides) {
  EXPECT_THAT(refusal(16, 172), testing::HasSubstr("choose a divisor such as 4, or 0 for"));
  EXPECT_THAT(refusal(64, 96), testing::HasSubstr("choose a divisor such as 32, or 0 for"));
  EXPECT_THAT(refusal(16, 129), testing::HasSubstr("choose 0 for the whole row"));
  EXPECT_EQ(refusal(16, 160), "");
}

}  // namespace
}  // namespace attar
