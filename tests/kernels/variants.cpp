#include "compress/kernels/variants.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <stdexcept>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

using testing::ExitedWithCode;
using testing::HasSubstr;

TEST(Variants, TheLastOneRunsAnywhere) {
  EXPECT_EQ(variants().back().name, "portable");
  EXPECT_TRUE(variants().back().supported());
}

TEST(Variants, EveryRunnableOneCanBeForcedByName) {
  for (const Variant* variant : runnable_variants()) {
    EXPECT_EQ(&choose_variant(variant->name), variant);
  }
}

TEST(Variants, WithoutAForcedNameTheBestRunnableOneIsChosen) {
  EXPECT_EQ(&choose_variant(""), runnable_variants().front());
}

TEST(Variants, AnUnknownNameIsRefusedAndTheKnownOnesAreListed) {
  try {
    choose_variant("avx9");
    FAIL() << "no exception";
  } catch (const std::invalid_argument& error) {
    EXPECT_THAT(error.what(), HasSubstr("'avx9'"));
    EXPECT_THAT(error.what(), HasSubstr("portable"));
  }
}

// In a process of its own, because the choice is made once.
class ForcedIsa : public EachVariant {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};
ATTAR_EACH_VARIANT(ForcedIsa);

TEST_P(ForcedIsa, TheEnvironmentVariableDecides) {
  const std::string name(variant().name);
  EXPECT_EXIT(
      {
        setenv("ATTAR_ISA", name.c_str(), 1);
        std::exit(active_isa() == name ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

TEST(ForcedIsaDeathTest, AnUnknownNameInTheEnvironmentThrowsEveryTime) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto refused = [] {
    try {
      active_variant();
      return false;
    } catch (const std::invalid_argument&) {
      return true;
    }
  };
  EXPECT_EXIT(
      {
        setenv("ATTAR_ISA", "sse9", 1);
        std::exit(refused() && refused() ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

}  // namespace
}  // namespace attar::kernels
