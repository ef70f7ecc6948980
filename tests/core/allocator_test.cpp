#include "compress/core/allocator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <vector>

namespace attar {
namespace {

constexpr std::int64_t kMegabyte = 1 << 20, kFloats = kMegabyte / 4;

std::int64_t resident_bytes() {
  std::int64_t all = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> all >> pages;
  return pages * 4096;
}

// Nothing is kept.
void start_anew() {
  give_large_blocks_back();
  at::empty({128 * kFloats}, at::kFloat);
}

// Pages that come from the system are zeros.
float content(std::int64_t bytes) {
  return *at::empty({bytes / 4}, at::kFloat).const_data_ptr<float>();
}

TEST(Allocator, TensorsFreedLastServeTheNextOnesOfTheirSize) {
  if (!kKeepsRecentTensors) GTEST_SKIP() << "freed tensors go back here";
  start_anew();
  for (const std::int64_t bytes : {2 * kMegabyte + 12, 16 * kMegabyte}) {
    at::full({bytes / 4}, 7.0f);
    EXPECT_EQ(content(bytes + kMegabyte), 0) << "another size";
    EXPECT_EQ(content(bytes), 7) << bytes;
  }
  at::full({17 * kFloats}, 7.0f);
  EXPECT_EQ(content(17 * kMegabyte), 0) << "larger ones go back";
}

TEST(Allocator, RoomIsMadeForALargeTensor) {
  if (!kKeepsRecentTensors) GTEST_SKIP() << "freed tensors go back here";
  start_anew();
  at::full({3 * kFloats}, 7.0f);
  at::empty({127 * kFloats}, at::kFloat);
  EXPECT_EQ(content(3 * kMegabyte), 7);
  at::empty({128 * kFloats}, at::kFloat);
  EXPECT_EQ(content(3 * kMegabyte), 0);
}

TEST(Allocator, NoMoreThan32MegabytesStay) {
  if (!kKeepsRecentTensors) GTEST_SKIP() << "freed tensors go back here";
  start_anew();
  const std::int64_t before = resident_bytes();
  std::vector<at::Tensor> tensors;
  for (std::int64_t i = 0; i < 60; ++i) tensors.push_back(at::full({(3 + i % 3) * kFloats}, 1.0f));
  EXPECT_GT(resident_bytes() - before, 200 * kMegabyte);
  tensors.clear();
  EXPECT_LT(resident_bytes() - before, 34 * kMegabyte);
}

}  // namespace
}  // namespace attar
