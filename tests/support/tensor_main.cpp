// Entry point of test programs on tensors: fixes the numerics before the first product.
#include <gtest/gtest.h>

#include "compress/core/numerics.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  attar::set_up_numerics();
  return RUN_ALL_TESTS();
}
